// SPDX-License-Identifier: Apache-2.0
// Reductions, sorting, softmax and norms on a GPU against the CPU, at the sizes at which their kernels change: rows of
// a few lanes, of a warp, of a block, cut into parts; with and without whole packs of 16 bytes.
#include <doctest/doctest.h>

#include <limits>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cuda.h>

#include "op_sweep/checks.h"

using namespace loom;
using namespace loom::sweep;

namespace {

bool has_gpu() {
  if (device_count(Device::cuda) > 0) return true;
  MESSAGE("skipped: " << cuda_description());
  return false;
}

void check_cases(const Cases& cases) {
  for (const Case& c : cases.all)
    for (const DType dtype : {f64, f32, bf16}) {
      std::string wrong;
      try {
        wrong = check_device(c, dtype, Device::cuda);
      } catch (const Error& error) {
        wrong = error.what();
      }
      CHECK_MESSAGE(wrong.empty(), c.name(), " ", to_string(dtype), ": ", wrong);
    }
}

Tensor on_gpu(const Tensor& x) { return x.to(Device(Device::cuda)); }
// Elements as they are, NaN equal to NaN.
void check_same(const Tensor& given, const Tensor& expected, double tolerance = 1e-6) {
  CHECK(given.dtype() == expected.dtype());
  CHECK(distance(given.to(Device()).to(f64), expected.to(f64)) <= tolerance);
}

}  // namespace

TEST_CASE("reductions on a GPU, of every shape of work") {
  if (!has_gpu()) return;
  struct Shape {
    Dims shape;
    std::vector<int64_t> dims;
  };
  const std::vector<Shape> shapes = {{{8, 1024}, {1}},
                                     {{2, 5000}, {1}},
                                     {{1, 9001}, {1}},
                                     {{3, 7}, {1}},
                                     {{1000, 3}, {1}},
                                     {{300, 64}, {0}},
                                     {{3000, 5}, {0}},
                                     {{5000, 1}, {0}},
                                     {{40, 160}, {0}},
                                     {{4, 16, 24, 24}, {0, 2, 3}},
                                     {{4, 5, 7, 9}, {0, 2, 3}},
                                     {{4, 5, 7, 9}, {1, 3}},
                                     {{33, 64, 9}, {1}},
                                     {{33, 64, 16}, {1}},
                                     {{9000}, {0}},
                                     {{2, 3, 4, 5, 6}, {0, 2, 4}},
                                     {{10, 20, 40}, {0, 1}}};
  Cases cases;
  for (const auto& [shape, dims] : shapes) {
    const std::string name = to_string(shape);
    double n = 1;
    for (const int64_t d : dims) n *= static_cast<double>(shape[static_cast<int>(d)]);
    const auto add = [&, dims = dims](const char* op, const Input& x, auto f) {
      cases.add(op, name, {x}, [=](In in) { return f(in[0], Dims(dims)); }).sum_of(n).roundings(8);
    };
    add("sum", real(shape), [](const Tensor& x, const Dims& d) { return sum(x, d); });
    add("mean", real(shape), [](const Tensor& x, const Dims& d) { return mean(x, d); });
    add("logsumexp", real(shape), [](const Tensor& x, const Dims& d) { return logsumexp(x, d); });
    add("norm", constant(real(shape)), [](const Tensor& x, const Dims& d) { return norm(x, 2, d); });
  }
  check_cases(cases);
}

TEST_CASE("reductions of whole numbers and of NaN are exact on a GPU") {
  if (!has_gpu()) return;
  sweep::Random random(3);
  for (const Dims& shape : {Dims{3, 1500}, Dims{1500, 3}, Dims{35, 65}, Dims{100, 40}}) {
    const Tensor base = integers(shape, -9, 9).make(random);
    for (const DType t : {i64, i32, u8, boolean, f64, f32, f16, bf16}) {
      Tensor x = base.to(t == u8 ? i64 : t);
      if (t == u8) x = (base * base).to(u8);
      const bool whole_sum = item_size(t) > 2 || !is_floating(t);
      for (const int dim : {0, 1}) {
        INFO(shape, " ", to_string(t), " along ", dim);
        if (whole_sum) check_same(sum(on_gpu(x), {dim}), sum(x, {dim}));
        check_same(all(on_gpu(x), {dim}), all(x, {dim}));
        check_same(any(on_gpu(x), {dim}), any(x, {dim}));
        check_same(argmax(on_gpu(x), dim), argmax(x, dim));
        check_same(argmin(on_gpu(x), dim), argmin(x, dim));
        for (const bool descending : {false, true}) {
          const auto given = sort(on_gpu(x), dim, descending), expected = sort(x, dim, descending);
          check_same(given.first, expected.first);
          check_same(given.second, expected.second);
        }
        if (shape[dim] > 2) check_same(topk(on_gpu(x), 2, dim).second, topk(x, 2, dim).second);
        if (!is_floating(t) || t == f64) check_same(cumsum(on_gpu(x), dim), cumsum(x, dim));
        if (is_integral(t)) check_same(cumprod(on_gpu(x), dim), cumprod(x, dim));
        if (is_integral(t) && t != boolean) check_same(prod(on_gpu(x), {dim}), prod(x, {dim}));
      }
      check_same(argmax(on_gpu(x)), argmax(x));
    }
    for (const DType t : {f64, f32, f16, bf16}) {
      const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
      const Tensor with = where(base == 5, full(shape, nan, f64),
                                where(base == -3, full(shape, infinity, f64),
                                      where(base == -9, full(shape, -infinity, f64), base.to(f64))))
                              .to(t);
      for (const int dim : {0, 1}) {
        INFO(shape, " ", to_string(t), " along ", dim);
        for (const Tensor& x : {with, where(isnan(with), zeros_like(with), with)}) {
          check_same(sort(on_gpu(x), dim).second, sort(x, dim).second);
          check_same(sort(on_gpu(x), dim, true).second, sort(x, dim, true).second);
          check_same(argmax(on_gpu(x), dim), argmax(x, dim));
          check_same(max(on_gpu(x), dim).first, max(x, dim).first);
          check_same(min(on_gpu(x), dim).first, min(x, dim).first);
          check_same(max(on_gpu(x)), max(x));
          check_same(logsumexp(on_gpu(x), {dim}), logsumexp(x, {dim}));
          check_same(softmax(on_gpu(x), dim), softmax(x, dim), is_half(t) ? 1e-2 : 1e-6);
          check_same(log_softmax(on_gpu(x), dim), log_softmax(x, dim), is_half(t) ? 1e-2 : 1e-6);
        }
        const Tensor low = full(shape, -infinity, t);
        check_same(softmax(on_gpu(low), dim), softmax(low, dim));
        check_same(logsumexp(on_gpu(low), {dim}), logsumexp(low, {dim}));
      }
    }
  }
}

TEST_CASE("running sums and products on a GPU") {
  if (!has_gpu()) return;
  Cases cases;
  const std::vector<std::pair<Dims, int>> shapes = {{{3, 5000}, 1}, {{1, 40000}, 1},   {{700, 40}, 1},
                                                    {{700, 40}, 0}, {{4, 100, 50}, 1}, {{600, 20}, 1}};
  for (const auto& [shape, dim] : shapes)
    cases.add("cumsum", to_string(shape), {constant(real(shape))}, [dim = dim](In x) { return cumsum(x[0], dim); })
        .sum_of(static_cast<double>(shape[dim]));
  check_cases(cases);
  const Tensor x = exp2(full({300}, 100.0, f64));
  x.slice(0, 0, 1).zero_();
  check_same(cumprod(on_gpu(x), 0), cumprod(x, 0));
}

TEST_CASE("softmax on a GPU") {
  if (!has_gpu()) return;
  Cases cases;
  const std::vector<std::pair<Dims, int>> shapes = {{{5, 3}, 1},       {{70, 8}, 1},   {{9, 64}, 1},   {{9, 256}, 1},
                                                    {{5, 512}, 1},     {{3, 1024}, 1}, {{2, 2048}, 1}, {{2, 3001}, 1},
                                                    {{3, 40}, 1},      {{3, 301}, 1},  {{3, 600}, 1},  {{2, 100, 7}, 1},
                                                    {{2, 20, 300}, 1}, {{500, 3}, 0},  {{1, 9}, 0}};
  for (const auto& [shape, dim] : shapes) {
    const auto n = static_cast<double>(shape[dim]);
    const std::string name = to_string(shape);
    cases.add("softmax", name, {real(shape)}, [dim = dim](In x) { return softmax(x[0], dim); }).sum_of(n).roundings(8);
    cases.add("log_softmax", name, {real(shape)}, [dim = dim](In x) { return log_softmax(x[0], dim); })
        .sum_of(n)
        .roundings(8);
  }
  check_cases(cases);
}

TEST_CASE("cross entropy on a GPU") {
  if (!has_gpu()) return;
  Cases cases;
  for (const int64_t classes : {10, 33, 1024, 1030, 4096}) {
    const Dims shape{7, classes};
    const auto add = [&](const char* what, const Input& target, const CrossEntropyOptions& options) {
      cases
          .add("cross_entropy", str(what, ' ', shape), {real(shape), target, constant(real({classes}, 0.2, 2))},
               [=](In x) {
                 CrossEntropyOptions given = options;
                 if (options.label_smoothing > 0) given.weight = x[2];
                 return cross_entropy(x[0], x[1], given);
               })
          .sum_of(static_cast<double>(classes))
          .roundings(8);
    };
    add("plain", integers({7}, 0, classes), {});
    add("weighted and smooth", integers({7}, 0, classes), {.reduction = Reduction::sum, .label_smoothing = 0.1});
    add("none", integers({7}, 0, classes), {.reduction = Reduction::none});
    add("ignored", integers({7}, 0, 3), {.ignore_index = 1});
  }
  check_cases(cases);
  const Tensor target = on_gpu(tensor({0, 12, -100}, i64)), logits = on_gpu(zeros({3, 5}, f32));
  const auto wrong = [&] { return cross_entropy(logits, target, {}).to(Device()); };
  CHECK_THROWS_WITH_AS(wrong(),
                       doctest::Contains("cross_entropy: target 12 at row 1 is out of range for 5 classes "
                                         "(ignore_index is -100)"),
                       Error);
}

TEST_CASE("norms on a GPU") {
  if (!has_gpu()) return;
  Cases cases;
  for (const Dims& shape : {Dims{70, 8}, Dims{9, 64}, Dims{5, 768}, Dims{3, 2048}, Dims{5, 1003}, Dims{70, 33},
                            Dims{2, 4096}, Dims{2, 8200}}) {
    const std::string name = to_string(shape);
    const auto length = static_cast<double>(shape[0] + shape[1]);
    const Dims row{shape[1]};
    cases.add("layer_norm", name + " plain", {real(shape)}, [=](In x) { return layer_norm(x[0], row); })
        .sum_of(length)
        .roundings(16);
    if (shape[1] > 3000) continue;  // a host that plays a GPU takes long for the second stage of many columns
    cases
        .add("layer_norm", name, {real(shape), real(row), real(row)},
             [=](In x) { return layer_norm(x[0], row, x[1], x[2]); })
        .sum_of(length)
        .roundings(16);
    cases.add("rms_norm", name, {real(shape), real(row)}, [=](In x) { return rms_norm(x[0], row, x[1], 1e-5); })
        .sum_of(length)
        .roundings(16);
  }
  for (const Dims& shape : {Dims{2, 8, 6, 6}, Dims{2, 6, 20, 15}, Dims{3, 4, 5}, Dims{40, 4, 16}})
    cases
        .add("group_norm", to_string(shape), {real(shape), real({shape[1]}), real({shape[1]})},
             [](In x) { return group_norm(x[0], 2, x[1], x[2]); })
        .sum_of(static_cast<double>(shape.numel()))
        .roundings(16);
  for (const Dims& shape : {Dims{80, 16}, Dims{40, 5}, Dims{3, 8, 8, 16}, Dims{4, 3, 7, 7}, Dims{60, 24, 1, 1},
                            Dims{300, 1}, Dims{3, 1, 20, 20}, Dims{30, 10, 3}}) {
    const Input w = real({shape[1]});
    const auto length = static_cast<double>(shape.numel()) / static_cast<double>(shape[1]);
    cases
        .add("batch_norm", to_string(shape), {real(shape), w, w},
             [](In x) { return batch_norm(x[0], {}, {}, x[1], x[2], true); })
        .sum_of(length)
        .roundings(16);
  }
  cases
      .add("batch_norm", "channels last", {real({4, 6, 6, 16}), real({16}), real({16})},
           [](In x) {
             return batch_norm(permute(x[0], {0, 3, 1, 2}), {}, {}, x[1], x[2], true);
           })
      .sum_of(144)
      .roundings(16);
  check_cases(cases);
}
