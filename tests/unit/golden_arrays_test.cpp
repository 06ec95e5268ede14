// SPDX-License-Identifier: Apache-2.0
// Views, positions, reductions and order, with their gradients, against PyTorch; the cases are those of
// tests/golden/array_cases.py.
#include <loom/autograd/grad_mode.h>

#include "golden_case.h"

namespace {

using namespace loom;
using golden::Args;
using golden::Case;
using golden::Results;
using Indices = std::vector<Index>;

const double inf = std::numeric_limits<double>::infinity();

const std::vector<Case> views = {
    {"reshape",
     [](const Args& x) {
       return reshape(x[0], {6, -1});
     }},
    {"reshape/copy",
     [](const Args& x) {
       return reshape(transpose(x[0], 0, 2), {6, 4});
     }},
    {"flatten", [](const Args& x) { return flatten(x[0], 1); }},
    {"unflatten",
     [](const Args& x) {
       return unflatten(x[0], 1, {2, -1});
     }},
    {"transpose", [](const Args& x) { return transpose(x[0], 0, -1); }},
    {"permute",
     [](const Args& x) {
       return permute(x[0], {2, 0, -2});
     }},
    {"movedim", [](const Args& x) { return movedim(x[0], 0, -1); }},
    {"squeeze",
     [](const Args& x) {
       return Results{squeeze(x[0]), squeeze(x[0], -1), squeeze(x[0], 1)};
     }},
    {"unsqueeze",
     [](const Args& x) {
       return Results{unsqueeze(x[0], 1), unsqueeze(x[0], -1)};
     }},
    {"expand",
     [](const Args& x) {
       return expand(x[0], {2, -1, 4});
     }},
    {"slice",
     [](const Args& x) {
       return Results{slice(x[0], 0, 1, 4), slice(x[0], 1, {}, {}, 2), slice(slice(x[0], 0, -3, -1), 1, 1, 100),
                      slice(x[0], 0, 4, 2)};
     }},
    {"narrow", [](const Args& x) { return narrow(x[0], 0, 1, 3); }},
    {"select", [](const Args& x) { return select(x[0], -1, -2); }},
    {"diagonal", [](const Args& x) { return diagonal(x[0]); }},
    {"diagonal/batch", [](const Args& x) { return diagonal(x[0], -1, 0, 2); }},
    {"split", [](const Args& x) { return split(x[0], 2); }},
    {"split/sizes",
     [](const Args& x) {
       return split(x[0], std::vector<int64_t>{1, 4}, 1);
     }},
    {"chunk", [](const Args& x) { return chunk(x[0], 3); }},
    {"chunk/fewer", [](const Args& x) { return chunk(x[0], 4, 1); }},
    {"unbind", [](const Args& x) { return unbind(x[0], 1); }},
    {"contiguous", [](const Args& x) { return contiguous(x[0].t()); }},
    {"clone", [](const Args& x) { return clone(x[0]); }},
    {"cat",
     [](const Args& x) {
       return cat({x[0], x[1], x[2]}, -1);
     }},
    {"concat",
     [](const Args& x) {
       return concat({x[0], x[1]});
     }},
    {"stack",
     [](const Args& x) {
       return stack({x[0], x[1]}, 1);
     }},
    {"repeat",
     [](const Args& x) {
       return repeat(x[0], {2, 1, 2});
     }},
    {"repeat_interleave", [](const Args& x) { return repeat_interleave(x[0], 2, 1); }},
    {"flip",
     [](const Args& x) {
       return flip(x[0], {-1, 0});
     }},
    {"roll",
     [](const Args& x) {
       return Results{roll(x[0], 2, 1), roll(x[0], -7, 1)};
     }},
    {"triu",
     [](const Args& x) {
       return Results{triu(x[0]), triu(x[0], 1), triu(x[0], -1)};
     }},
    {"tril",
     [](const Args& x) {
       return Results{tril(x[0]), tril(x[0], 1), tril(x[0], -1)};
     }},
    {"pad",
     [](const Args& x) {
       return pad(x[0], {1, 2, 0, 1}, 0.5);
     }},
    {"pad/crop",
     [](const Args& x) {
       return pad(x[0], {-1, 2, 0, -1});
     }},
    {"sum_to",
     [](const Args& x) {
       return sum_to(x[0], {3, 1});
     }},
};

const std::vector<Case> positions = {
    {"index_select", [](const Args& x) { return index_select(x[0], 0, x[1]); }},
    {"index_select/last", [](const Args& x) { return index_select(x[0], -1, x[1]); }},
    {"index_add", [](const Args& x) { return index_add(x[0], 0, x[1], x[2]); }},
    {"gather", [](const Args& x) { return gather(x[0], 1, x[1]); }},
    {"gather/smaller", [](const Args& x) { return gather(x[0], 0, x[1]); }},
    {"scatter", [](const Args& x) { return scatter(x[0], 1, x[1], x[2]); }},
    {"scatter_add", [](const Args& x) { return scatter_add(x[0], 1, x[1], x[2]); }},
    {"scatter_add/smaller", [](const Args& x) { return scatter_add(x[0], 0, x[1], x[2]); }},
    {"take_along_dim", [](const Args& x) { return take_along_dim(x[0], x[1], 1); }},
    {"embedding", [](const Args& x) { return embedding(x[0], x[1], 2); }},
    {"one_hot", [](const Args& x) { return one_hot(x[0], 4); }},
    {"one_hot/largest", [](const Args& x) { return one_hot(x[0]); }},
    {"nonzero", [](const Args& x) { return nonzero(x[0]); }},
    {"masked_select", [](const Args& x) { return masked_select(x[0], x[1]); }},
    {"masked_fill", [](const Args& x) { return masked_fill(x[0], x[1], -inf); }},
    {"masked_fill/tensor", [](const Args& x) { return masked_fill(x[0], x[1], x[2]); }},
    {"where", [](const Args& x) { return where(x[0], x[1], x[2]); }},
    {"where/number", [](const Args& x) { return where(x[0], x[1], 2.0); }},
};

Case index_case(const std::string& what, const std::function<Indices(const Args&)>& indices) {
  return {"index/" + what, [indices](const Args& x) { return index(x[0], indices(x)); }};
}
// The tensors among the indices are the inputs from 2 on.
Case put_case(const std::string& what, bool accumulate, const std::function<Indices(const Args&)>& indices) {
  return {"index_put/" + what,
          [indices, accumulate](const Args& x) { return index_put(x[0], indices(x), x[1], accumulate); }};
}

const std::vector<Case> indexing = {
    index_case("position", [](const Args&) -> Indices { return {1}; }),
    index_case("slices",
               [](const Args&) -> Indices {
                 return {Slice{1, {}, 2}, Slice{{}, -1}};
               }),
    index_case("ellipsis",
               [](const Args&) -> Indices {
                 return {ellipsis, -1};
               }),
    index_case("new_axis",
               [](const Args&) -> Indices {
                 return {new_axis, 0, new_axis};
               }),
    index_case("list", [](const Args& x) -> Indices { return {Index(x[1])}; }),
    index_case("list_in_the_middle",
               [](const Args& x) -> Indices {
                 return {Slice{}, Index(x[1])};
               }),
    index_case("adjoining_lists",
               [](const Args& x) -> Indices {
                 return {Slice{}, Index(x[1]), Index(x[2])};
               }),
    index_case("separated_lists",
               [](const Args& x) -> Indices {
                 return {Index(x[1]), Slice{}, Index(x[2])};
               }),
    index_case("position_and_list",
               [](const Args& x) -> Indices {
                 return {0, Slice{}, Index(x[1])};
               }),
    index_case("list_new_axis_list",
               [](const Args& x) -> Indices {
                 return {Index(x[1]), new_axis, Index(x[2])};
               }),
    index_case("mask", [](const Args& x) -> Indices { return {Index(x[1])}; }),
    index_case("mask_of_two", [](const Args& x) -> Indices { return {Index(x[1])}; }),
    index_case("slice_and_mask",
               [](const Args& x) -> Indices {
                 return {Slice{1, 3}, Index(x[1])};
               }),
    index_case("mask_and_list",
               [](const Args& x) -> Indices {
                 return {Index(x[1]), Index(x[2])};
               }),
    index_case("nothing", [](const Args& x) -> Indices { return {Index(x[1])}; }),
    put_case("list", false, [](const Args& x) -> Indices { return {Index(x[2])}; }),
    put_case("broadcast", false, [](const Args& x) -> Indices { return {Index(x[2])}; }),
    put_case("mask", false, [](const Args& x) -> Indices { return {Index(x[2])}; }),
    put_case("slice_and_list", false,
             [](const Args& x) -> Indices {
               return {Slice{1, {}}, Index(x[2])};
             }),
    put_case("separated_lists", false,
             [](const Args& x) -> Indices {
               return {Index(x[2]), Slice{}, Index(x[3])};
             }),
    put_case("accumulate", true, [](const Args& x) -> Indices { return {Index(x[2])}; }),
    put_case("accumulate_broadcast", true,
             [](const Args& x) -> Indices {
               return {Index(x[2]), Index(x[3])};
             }),
    put_case("accumulate_slices", true,
             [](const Args& x) -> Indices {
               return {Slice{0, 2}, Index(x[2])};
             }),
};

using Reduce = Tensor (*)(const Tensor&, const Dims&, bool);

void add_sums(std::vector<Case>& c) {
  const std::pair<std::string, Reduce> ops[] = {
      {"sum", loom::sum}, {"mean", loom::mean}, {"prod", loom::prod}, {"amax", loom::amax}, {"amin", loom::amin}};
  for (const auto& [name, f] : ops) {
    c.emplace_back(name, [f = f](const Args& x) { return f(x[0], {}, false); });
    c.emplace_back(name + "/special", [f = f](const Args& x) { return f(x[0], {1}, false); });
    if (name != "prod") c.emplace_back(name + "/dims", [f = f](const Args& x) { return f(x[0], {0, -1}, true); });
    if (name[0] == 'a') c.emplace_back(name + "/ties", [f = f](const Args& x) { return f(x[0], {1}, false); });
  }
  c.emplace_back("prod/dim", [](const Args& x) { return prod(x[0], {1}, true); });
  c.emplace_back("prod/zeros", [](const Args& x) { return prod(x[0], {1}); });
  c.emplace_back("sum/masks", [](const Args& x) { return sum(x[0], {0}); });
  c.emplace_back("sum/bytes", [](const Args& x) { return sum(x[0]); });
  c.emplace_back("prod/whole", [](const Args& x) { return prod(x[0], {0}); });
  c.emplace_back("all", [](const Args& x) { return Results{all(x[0]), all(x[0], {1}, true)}; });
  c.emplace_back("any", [](const Args& x) { return Results{any(x[0]), any(x[0], {1})}; });
  c.emplace_back("all/nothing", [](const Args& x) { return all(x[0], {1}); });
  c.emplace_back("any/whole", [](const Args& x) { return any(x[0], {0}); });
}

void add_extrema(std::vector<Case>& c) {
  struct Extremum {
    std::string name;
    Tensor (*whole)(const Tensor&);
    std::pair<Tensor, Tensor> (*along)(const Tensor&, int, bool);
    Tensor (*where)(const Tensor&, std::optional<int>, bool);
  };
  const Extremum ops[] = {{"max", loom::max, loom::max, loom::argmax}, {"min", loom::min, loom::min, loom::argmin}};
  for (const Extremum& op : ops) {
    c.emplace_back(op.name, [op](const Args& x) { return op.whole(x[0]); });
    c.emplace_back(op.name + "/ties", [op](const Args& x) { return op.whole(x[0]); });
    c.emplace_back(op.name + "/dim", [op](const Args& x) { return op.along(x[0], 0, true); });
    for (const char* const what : {"/ties_dim", "/special", "/whole"})
      c.emplace_back(op.name + what, [op](const Args& x) { return op.along(x[0], 1, false); });
    const std::string name = "arg" + op.name;
    c.emplace_back(name, [op](const Args& x) { return op.where(x[0], {}, false); });
    c.emplace_back(name + "/dim", [op](const Args& x) { return op.where(x[0], -1, true); });
    c.emplace_back(name + "/ties", [op](const Args& x) {
      return Results{op.where(x[0], {}, false), op.where(x[0], 1, false)};
    });
    c.emplace_back(name + "/special", [op](const Args& x) {
      return Results{op.where(x[0], {}, false), op.where(x[0], 0, false)};
    });
    c.emplace_back(name + "/bytes", [op](const Args& x) { return op.where(x[0], 1, false); });
  }
}

void add_spreads(std::vector<Case>& c) {
  using Spread = Tensor (*)(const Tensor&, const Dims&, double, bool);
  const std::pair<std::string, Spread> ops[] = {{"var", loom::var}, {"std", loom::std}};
  for (const auto& [name, f] : ops) {
    c.emplace_back(name, [f = f](const Args& x) { return f(x[0], {}, 1, false); });
    c.emplace_back(name + "/dims", [f = f](const Args& x) { return f(x[0], {0, 2}, 1, true); });
    c.emplace_back(name + "/biased", [f = f](const Args& x) { return f(x[0], {1}, 0, false); });
    c.emplace_back(name + "/correction", [f = f](const Args& x) { return f(x[0], {0}, 2, false); });
    for (const char* const what : {"/too_few", "/equal", "/special"})
      c.emplace_back(name + what, [f = f](const Args& x) { return f(x[0], {1}, 1, false); });
  }
  const std::pair<std::string, double> orders[] = {{"zero", 0},  {"one", 1},    {"two", 2},
                                                   {"three", 3}, {"half", 0.5}, {"infinite", inf}};
  for (const auto& [what, p] : orders)
    for (const char* const of : {"", "_of_zeros", "_special"})
      c.emplace_back("norm/" + what + of, [p = p](const Args& x) { return norm(x[0], p, {1}); });
  c.emplace_back("norm/all", [](const Args& x) { return norm(x[0], 2, {}, true); });
  c.emplace_back("norm/infinite_ties", [](const Args& x) { return norm(x[0], inf); });
}

std::vector<Case> reductions() {
  std::vector<Case> c;
  add_sums(c);
  add_extrema(c);
  add_spreads(c);
  return c;
}

std::vector<Case> order() {
  std::vector<Case> c;
  const std::pair<std::string, Tensor (*)(const Tensor&, int)> scans[] = {{"cumsum", loom::cumsum},
                                                                          {"cumprod", loom::cumprod}};
  for (const auto& [name, f] : scans) {
    c.emplace_back(name, [f = f](const Args& x) { return f(x[0], 1); });
    c.emplace_back(name + "/first", [f = f](const Args& x) { return f(x[0], 0); });
    c.emplace_back(name + "/special", [f = f](const Args& x) { return f(x[0], 1); });
    c.emplace_back(name + "/whole", [f = f](const Args& x) { return f(x[0], 0); });
  }
  c.emplace_back("cumprod/zeros", [](const Args& x) { return cumprod(x[0], 1); });
  c.emplace_back("cumsum/masks", [](const Args& x) { return cumsum(x[0], 0); });
  for (const std::string what : {"", "/ties", "/special"}) {
    c.emplace_back("sort" + what, [](const Args& x) { return sort(x[0]); });
    c.emplace_back("sort" + (what.empty() ? "/plain" : what) + "_descending",
                   [](const Args& x) { return sort(x[0], -1, true); });
    c.emplace_back("argsort" + what, [](const Args& x) { return argsort(x[0], 0, true); });
  }
  c.emplace_back("sort/first", [](const Args& x) { return sort(x[0], 0); });
  c.emplace_back("sort/whole", [](const Args& x) { return sort(x[0], -1, true); });
  c.emplace_back("sort/masks", [](const Args& x) { return sort(x[0]); });
  c.emplace_back("topk", [](const Args& x) { return topk(x[0], 2, 0); });
  c.emplace_back("topk/smallest", [](const Args& x) { return topk(x[0], 3, -1, false); });
  c.emplace_back("topk/all", [](const Args& x) { return topk(x[0], 4); });
  c.emplace_back("topk/special", [](const Args& x) { return topk(x[0], 3); });
  c.emplace_back("topk/special_smallest", [](const Args& x) { return topk(x[0], 3, -1, false); });
  return c;
}

// The first input is written to.
Case writing(const std::string& name, const std::function<void(const Tensor&, const Args&)>& write) {
  return {name, [write](const Args& x) {
            const NoGrad off;
            Tensor y = x[0].clone();
            write(y, x);
            return y;
          }};
}

const std::vector<Case> in_place = {
    writing("add_/alpha", [](const Tensor& y, const Args& x) { y.add_(x[1], 0.5); }),
    writing("sub_/alpha", [](const Tensor& y, const Args& x) { y.sub_(x[1], 2); }),
    writing("mul_", [](const Tensor& y, const Args& x) { y.mul_(x[1]); }),
    writing("div_", [](const Tensor& y, const Args& x) { y.div_(x[1]); }),
    writing("pow_", [](const Tensor& y, const Args& x) { y.pow_(x[1]); }),
    writing("lerp_", [](const Tensor& y, const Args& x) { y.lerp_(x[1], x[2]); }),
    writing("addcmul_", [](const Tensor& y, const Args& x) { y.addcmul_(x[1], x[2], 0.3); }),
    writing("copy_", [](const Tensor& y, const Args& x) { y.copy_(x[1]); }),
    writing("clamp_", [](const Tensor& y, const Args&) { y.clamp_(-0.5, 0.75); }),
    writing("masked_fill_", [](const Tensor& y, const Args& x) { y.masked_fill_(x[1], 7); }),
    writing("index_add_", [](const Tensor& y, const Args& x) { y.index_add_(1, x[1], x[2]); }),
    writing("scatter_", [](const Tensor& y, const Args& x) { y.scatter_(1, x[1], x[2]); }),
    writing("scatter_add_", [](const Tensor& y, const Args& x) { y.scatter_add_(1, x[1], x[2]); }),
    writing("index_put_", [](const Tensor& y, const Args& x) { y.index_put_({Index(x[1])}, x[2]); }),
    writing("index_put_/accumulate", [](const Tensor& y, const Args& x) { y.index_put_({Index(x[1])}, x[2], true); }),
};

}  // namespace

golden::Groups golden::array_cases() { return {views, positions, indexing, reductions(), order(), in_place}; }

TEST_CASE("views, positions, reductions and order are PyTorch's, their gradients too") {
  golden::check_cases("arrays", golden::array_cases());
}
