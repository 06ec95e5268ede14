// SPDX-License-Identifier: Apache-2.0
// Losses.
#include "case.h"

namespace loom::sweep {

namespace {

const std::pair<const char*, Reduction> reductions[] = {
    {"mean", Reduction::mean}, {"sum", Reduction::sum}, {"none", Reduction::none}};

void add_cross_entropies(Cases& c) {
  const auto indices = [&](const std::string& what, const Dims& x, const Dims& target,
                           const CrossEntropyOptions& options) {
    c.add("cross_entropy", what, {real(x), integers(target, 0, 3)}, [=](In in) {
       return cross_entropy(in[0], in[1], options);
     }).sum_of(8);
  };
  const auto with_weight = [&](const std::string& what, const Dims& x, const Dims& target,
                               const CrossEntropyOptions& given) {
    c.add("cross_entropy", what, {real(x), integers(target, 0, 3), constant(real({3}, 0.2, 2))}, [=](In in) {
       auto options = given;
       options.weight = in[2];
       return cross_entropy(in[0], in[1], options);
     }).sum_of(8);
  };
  for (const auto& [name, reduction] : reductions) {
    const std::string n = name;
    indices(n, {4, 3}, {4}, {.reduction = reduction});
    indices(n + ", ignored", {5, 3}, {5}, {.ignore_index = 1, .reduction = reduction});
    indices(n + ", smoothed", {4, 3}, {4}, {.reduction = reduction, .label_smoothing = 0.2});
    with_weight(n + ", weighted", {4, 3}, {4}, {.reduction = reduction});
    with_weight(n + ", all options", {6, 3}, {6}, {.ignore_index = 2, .reduction = reduction, .label_smoothing = 0.3});
  }
  indices("one", {3}, {}, {});
  indices("planes", {2, 3, 2, 2}, {2, 2, 2}, {});
  indices("planes, none", {2, 3, 2}, {2, 2}, {.reduction = Reduction::none});
  indices("no rows", {0, 3}, {0}, {.reduction = Reduction::sum});
  const auto probabilities = [&](const std::string& what, const Dims& shape, const CrossEntropyOptions& options) {
    c.add("cross_entropy", "probabilities, " + what, {real(shape), real(shape, 0.1, 0.5)}, [=](In in) {
       return cross_entropy(in[0], in[1], options);
     }).sum_of(12);
  };
  for (const auto& [name, reduction] : reductions) probabilities(name, {4, 3}, {.reduction = reduction});
  probabilities("smoothed", {2, 3, 2}, {.label_smoothing = 0.1});
  probabilities("one", {3}, {});
  c.add("cross_entropy", "probabilities, weighted", {real({4, 3}), real({4, 3}, 0.1, 0.5), constant(real({3}, 0.2, 2))},
        [](In in) { return cross_entropy(in[0], in[1], {.weight = in[2]}); })
      .sum_of(12);
}

void add_nll_losses(Cases& c) {
  for (const auto& [name, reduction] : reductions) {
    const NllOptions options{.ignore_index = 1, .reduction = reduction};
    c.add("nll_loss", name, {real({5, 3}, -3, -0.1), integers({5}, 0, 3)}, [=](In in) {
       return nll_loss(in[0], in[1], options);
     }).sum_of(8);
    c.add("nll_loss", std::string(name) + ", weighted",
          {real({2, 3, 2}, -3, -0.1), integers({2, 2}, 0, 3), constant(real({3}, 0.2, 2))},
          [=, r = reduction](In in) { return nll_loss(in[0], in[1], {.weight = in[2], .reduction = r}); })
        .sum_of(8);
  }
}

void add_regressions(Cases& c) {
  const Input x = real({3, 4}), target = real({3, 4});
  for (const auto& [n, r] : reductions) {
    const std::string name = n;
    const Reduction reduction = r;
    const auto add = [&](const char* op, const std::string& what, const std::function<Tensor(In)>& f) {
      c.add(op, what, {x, target}, f).sum_of(12);
    };
    add("mse_loss", name, [=](In in) { return mse_loss(in[0], in[1], reduction); });
    add("l1_loss", name, [=](In in) { return l1_loss(in[0], in[1], reduction); });
    add("smooth_l1_loss", name, [=](In in) { return smooth_l1_loss(in[0], in[1], reduction, 0.7); });
    add("smooth_l1_loss", name + ", beta 0", [=](In in) { return smooth_l1_loss(in[0], in[1], reduction, 0); });
    add("huber_loss", name, [=](In in) { return huber_loss(in[0], in[1], reduction, 0.7); });
  }
  c.add("mse_loss", "number", {x}, [](In in) { return mse_loss(in[0], 0.5); }).sum_of(12);
}

void add_probabilities(Cases& c) {
  const Input x = real({3, 4}, 0.1, 0.9), label = real({3, 4}, 0, 1), logits = real({3, 4}),
              weight = constant(real({4}, 0.2, 2));
  for (const auto& [n, r] : reductions) {
    const std::string name = n;
    const Reduction reduction = r;
    c.add("binary_cross_entropy", name, {x, label}, [=](In in) {
       return binary_cross_entropy(in[0], in[1], {}, reduction);
     }).sum_of(12);
    c.add("binary_cross_entropy_with_logits", name, {logits, label}, [=](In in) {
       return binary_cross_entropy_with_logits(in[0], in[1], {}, reduction);
     }).sum_of(12);
  }
  c.add("binary_cross_entropy", "weighted", {x, label, weight}, [](In in) {
     return binary_cross_entropy(in[0], in[1], in[2]);
   }).sum_of(12);
  c.add("binary_cross_entropy_with_logits", "weighted", {logits, label, weight, weight}, [](In in) {
     return binary_cross_entropy_with_logits(in[0], in[1], in[2], Reduction::mean, in[3]);
   }).sum_of(12);
  const Input log_x = real({3, 4}, -3, -0.1);
  const std::pair<const char*, KlReduction> kinds[] = {{"mean", KlReduction::mean},
                                                       {"batchmean", KlReduction::batchmean},
                                                       {"sum", KlReduction::sum},
                                                       {"none", KlReduction::none}};
  for (const auto& [n, r] : kinds) {
    const KlReduction reduction = r;
    c.add("kl_div", n, {log_x, x}, [=](In in) { return kl_div(in[0], in[1], reduction); }).sum_of(12);
    c.add("kl_div", std::string(n) + ", log_target", {log_x, real({3, 4}, -2, -0.1)}, [=](In in) {
       return kl_div(in[0], in[1], reduction, true);
     }).sum_of(12);
  }
}

}  // namespace

void add_loss_cases(Cases& cases) {
  add_cross_entropies(cases);
  add_nll_losses(cases);
  add_regressions(cases);
  add_probabilities(cases);
}

}  // namespace loom::sweep
