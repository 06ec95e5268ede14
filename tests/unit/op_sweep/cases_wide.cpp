// SPDX-License-Identifier: Apache-2.0
// Results and gradients that 16 bits hold, of inputs whose squares, products or sums they do not hold: what lies
// between must not be rounded to 16 bits. The values are too large for differences, not the shapes.
#include "case.h"

namespace loom::sweep {

namespace {

void add_wide(Cases& c, const char* op, const char* what, std::vector<Input> inputs, std::function<Tensor(In)> f) {
  c.add(op, what, std::move(inputs), std::move(f)).large();
}

void add_wide_sums(Cases& c) {
  const Input x = real({1000}, -300, 300), rows = real({7, 100}, -300, 300);
  for (const double p : {1.5, 2.0, 2.5, 3.0, 4.0}) {
    add_wide(c, "norm", str("beyond 16 bits, p ", p).c_str(), {x}, [=](In in) { return norm(in[0], p); });
    add_wide(c, "norm", str("beyond 16 bits, rows, p ", p).c_str(), {rows}, [=](In in) { return norm(in[0], p, {1}); });
  }
  add_wide(c, "var", "beyond 16 bits", {x}, [](In in) { return var(in[0]); });
  add_wide(c, "var", "beyond 16 bits, rows", {rows}, [](In in) { return var(in[0], {1}, 0, true); });
  add_wide(c, "std", "beyond 16 bits", {x}, [](In in) { return std(in[0]); });
  add_wide(c, "std", "variance beyond 16 bits", {real({7, 100}, -900, 900)}, [](In in) { return std(in[0], {1}); });
  const Input factors = exactly(tensor({{300.0, 0.01}, {300.0, 0.5}}, f64));
  add_wide(c, "prod", "beyond 16 bits", {factors}, [](In in) { return prod(in[0]); });
  add_wide(c, "prod", "beyond 16 bits, keepdim", {factors}, [](In in) { return prod(in[0], {0, 1}, true); });
  add_wide(c, "prod", "beyond 16 bits, zero", {exactly(tensor({300.0, 300.0, 0.0, 0.01}, f64))},
           [](In in) { return prod(in[0], {0}); });
  add_wide(c, "cumprod", "many small factors", {exactly(tensor({0.03, 0.02, 0.01, 250.0, 300.0, 200.0}, f64))},
           [](In in) { return cumprod(in[0], 0); });
  add_wide(c, "addmm", "beyond 16 bits", {real({3, 2}), real({3, 50}, 20, 60), real({50, 2}, 20, 60)},
           [](In in) { return addmm(in[0], in[1], in[2], 1, 0.01); });
}

void add_wide_losses(Cases& c) {
  const Input x = real({300}, -200, 200), y = real({300}, -200, 200);
  add_wide(c, "mse_loss", "beyond 16 bits", {x, y}, [](In in) { return mse_loss(in[0], in[1]); });
  add_wide(c, "smooth_l1_loss", "beyond 16 bits", {x, y},
           [](In in) { return smooth_l1_loss(in[0], in[1], Reduction::none, 500); });
  add_wide(c, "huber_loss", "beyond 16 bits", {x, y},
           [](In in) { return huber_loss(in[0], in[1], Reduction::mean, 500); });
  add_wide(c, "kl_div", "sum beyond 16 bits", {real({200, 3}, -1000, -500), real({200, 3}, 0.4, 0.9)},
           [](In in) { return kl_div(in[0], in[1], KlReduction::batchmean); });
  const Input weight = constant(exactly(tensor({300.0, 1.0, 1.0, 0.5}, f64)));
  const Input logits = exactly(tensor({300.0, 2.0, -1.0, 1.0}, f64)), labels = exactly(zeros({4}, f64), false);
  add_wide(c, "binary_cross_entropy_with_logits", "weighted beyond 16 bits", {logits, labels, weight},
           [](In in) { return binary_cross_entropy_with_logits(in[0], in[1], in[2]); });
  const Input rows = exactly(tensor({{-300.0, 0.0, 0.0, -1.0}, {0.0, -2.0, 1.0, 0.0}, {1.0, 0.0, -1.0, 2.0}}, f64));
  const Input classes = exactly(tensor({0, 1, 3}));
  add_wide(c, "nll_loss", "weighted beyond 16 bits", {rows, classes, weight},
           [](In in) { return nll_loss(in[0], in[1], {.weight = in[2]}); });
  add_wide(c, "cross_entropy", "weighted beyond 16 bits", {rows, classes, weight},
           [](In in) { return cross_entropy(in[0], in[1], {.weight = in[2]}); });
  const Input shares = exactly(tensor({{1.0, 0.0, 0.0, 0.0}, {0.0, 0.5, 0.5, 0.0}, {0.0, 0.0, 0.0, 1.0}}, f64), false);
  add_wide(c, "cross_entropy", "probabilities weighted beyond 16 bits", {rows, shares, weight},
           [](In in) { return cross_entropy(in[0], in[1], {.weight = in[2]}); });
}

// Factors bring the slopes to where 16 bits hold them.
void add_wide_slopes(Cases& c) {
  const Input x = real({40}, 300, 2000), y = real({40}, 300, 2000);
  add_wide(c, "asinh", "beyond 16 bits", {x}, [](In in) { return asinh(in[0]) * 100.0; });
  add_wide(c, "acosh", "beyond 16 bits", {x}, [](In in) { return acosh(in[0]) * 100.0; });
  add_wide(c, "atan", "beyond 16 bits", {x}, [](In in) { return atan(in[0]) * 1e4; });
  add_wide(c, "softsign", "beyond 16 bits", {x}, [](In in) { return softsign(in[0]) * 1e4; });
  add_wide(c, "atan2", "beyond 16 bits", {x, y}, [](In in) { return atan2(in[0], in[1]) * 1e4; });
  add_wide(c, "rsqrt", "beyond 16 bits", {real({40}, 2e-4, 1e-3)}, [](In in) { return rsqrt(in[0]) * 0.01; });
  add_wide(c, "tan", "beyond 16 bits", {exactly(full({3}, 1.5703125, f64))}, [](In in) { return tan(in[0]) * 0.01; });
  const Input base = real({40}, 1.2, 1.3);
  add_wide(c, "pow_scalar", "beyond 16 bits", {base}, [](In in) { return pow_scalar(in[0], 40) * 0.01; });
  add_wide(c, "pow", "beyond 16 bits", {base, exactly(full({40}, 40.0, f64))},
           [](In in) { return pow(in[0], in[1]) * 0.01; });
  const Input large = exactly(full({3}, 5e4, f64)), small = exactly(full({3}, 0.46875, f64));
  add_wide(c, "fmod", "beyond 16 bits", {large, small}, [](In in) { return fmod(in[0], in[1]) * 0.01; });
  add_wide(c, "remainder", "beyond 16 bits", {large, small}, [](In in) { return remainder(in[0], in[1]) * 0.01; });
  add_wide(c, "logaddexp", "far from 0", {real({9}, 900, 902), real({9}, 900, 902)},
           [](In in) { return logaddexp(in[0], in[1]); });
  add_wide(c, "lerp", "beyond 16 bits", {exactly(full({3}, -6e4, f64)), exactly(full({3}, 6e4, f64))},
           [](In in) { return lerp(in[0], in[1], 0.25); });
  const Input outlier = exactly(tensor({{0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 8.0}}, f64));
  add_wide(c, "group_norm", "beyond 16 bits", {outlier, exactly(full({8}, 26e3, f64)), exactly(full({8}, -2e4, f64))},
           [](In in) { return group_norm(in[0], 1, in[1], in[2]); });
}

}  // namespace

void add_wide_cases(Cases& cases) {
  add_wide_sums(cases);
  add_wide_losses(cases);
  add_wide_slopes(cases);
}

}  // namespace loom::sweep
