// Affine maps: one product with its bias; two with a GELU between them.
#include <array>

#include <loom/accelerators/fused.h>
#include <loom/autograd/fp8.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/linear_gradients.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/ops/speaking_as.h>
#include <loom/tensor/create.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

namespace {

FusedKernels* fused_kernels(const Tensor& x) { return accelerator(x.device()).fused(); }

View view_or_null(const Tensor& x) { return x.defined() ? View(x) : View(); }

Tensor as_rows(const Tensor& x) { return raw::reshape(x, {-1, x.size(-1)}); }

// Under autocast, where layers are asked first.
Tensor in_8_bits(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const Context& here = context();
  return here.fp8 && here.autocast ? here.fp8->linear(x, weight, bias) : Tensor();
}

}  // namespace

namespace autograd {

namespace {

// Where rows^T @ x goes, and whether it is added to what is there; undefined: a tensor of its own, in the products'
// dtype.
struct Goal {
  Tensor memory;
  bool adds = false;
};

// A gradient that is to be f32, as under autocast, is so from the start: products of 16-bit matrices are summed in f32
// anyhow.
Goal goal_of(size_t input, const Tensor& rows, const Tensor& x) {
  auto [memory, adds, dtype] = destination(input);
  const bool widens = dtype == DType::f32 && is_half(x.dtype());
  const bool fits = memory.defined() && (widens || memory.dtype() == x.dtype()) && memory.storage() != rows.storage() &&
                    memory.storage() != x.storage();
  if (fits) return {memory, adds};
  return {widens ? empty({rows.size(1), x.size(1)}, {DType::f32, x.device()}) : Tensor()};
}

// Both gradients in one product, where the device has that.
bool together(const Tensor& dw, const Tensor& db, const Tensor& rows, const Tensor& x, bool adds) {
  FusedKernels* const fused = fused_kernels(x);
  if (fused == nullptr || rows.numel() == 0 || x.numel() == 0) return false;
  if (!fused->gemm_row_sums(dw, db, rows.t(), x, adds ? 1 : 0)) return false;
  dw.storage()->bump_version();
  return true;
}

}  // namespace

Tensor weight_gradient(size_t input, const Tensor& rows, const Tensor& x) {
  if (context().grad_mode) return matmul(rows.t(), x);
  const Goal goal = goal_of(input, rows, x);
  if (!goal.memory.defined()) return matmul(rows.t(), x);
  raw::matmul_into(goal.memory, rows.t(), x, goal.adds);
  return goal.memory;
}

std::pair<Tensor, Tensor> affine_gradients(size_t weight, const Tensor& rows, const Tensor& x, bool wants_weight,
                                           bool wants_bias) {
  if (wants_weight && wants_bias && !context().grad_mode && fused_kernels(x) != nullptr) {
    const Goal goal = goal_of(weight, rows, x);
    const Tensor dw = goal.memory.defined() ? goal.memory : empty({rows.size(1), x.size(1)}, {x.dtype(), x.device()});
    const Tensor db = empty({rows.size(1)}, {dw.dtype(), x.device()});
    if (together(dw, db, rows, x, goal.adds)) return {dw, db};
    raw::matmul_into(dw, rows.t(), x, goal.adds);
    return {dw, sum(rows, {0})};
  }
  return {wants_weight ? weight_gradient(weight, rows, x) : Tensor(), wants_bias ? sum(rows, {0}) : Tensor()};
}

}  // namespace autograd

Tensor linear(const Tensor& x_, const Tensor& weight_, const Tensor& bias_) {
  if (Tensor y = in_8_bits(x_, weight_, bias_); y.defined()) return y;
  const auto [x, weight, bias] = enter(ops::linear, x_, weight_, bias_);
  Tensor y = raw::linear(x, weight, bias);
  return record(
      ops::linear, std::move(y), {x, weight, bias},
      [x = save(x), weight = save(weight)](const Tensor& g, const Needs& needs) {
        Grads grads(3);
        if (needs[0]) grads[0] = matmul(g, weight());
        if (!needs[1] && !needs[2]) return grads;
        const Tensor rows = reshape(g, {-1, g.size(-1)});  // [rows, out]
        std::tie(grads[1], grads[2]) = affine_gradients(1, rows, reshape(x(), {-1, x().size(-1)}), needs[1], needs[2]);
        return grads;
      });
}

namespace {

// {gelu_tanh(pre), pre} of pre = x @ weight^T + bias.
std::pair<Tensor, Tensor> gelu_of_linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  if (FusedKernels* const fused = fused_kernels(x); fused != nullptr && x.numel() > 0 && weight.numel() > 0) {
    Dims shape = x.shape();
    shape.back() = weight.size(0);
    const TensorOptions like(x.dtype(), x.device());
    Tensor pre = empty(shape, like), y = empty(shape, like);
    if (fused->gemm_gelu(as_rows(y), as_rows(pre), as_rows(x), raw::transpose(weight, 0, 1), view_or_null(bias)))
      return {y, pre};
  }
  Tensor pre = raw::linear(x, weight, bias);
  return {raw::unary(Unary::gelu_tanh, pre), pre};
}

// {gradient of pre, its sums over rows or undefined} of g rows [.., out], the second layer's weight and pre, as rows.
std::pair<Tensor, Tensor> before_gelu(const Tensor& rows, const Tensor& weight, const Tensor& pre, bool wants_sums) {
  if (FusedKernels* const fused = fused_kernels(rows); fused != nullptr && rows.numel() > 0 && pre.numel() > 0) {
    const Tensor d = empty(pre.shape(), {pre.dtype(), pre.device()});
    const Tensor sums = wants_sums ? empty({pre.size(1)}, {pre.dtype(), pre.device()}) : Tensor();
    if (fused->gemm_gelu_grad(d, view_or_null(sums), rows, weight, pre)) return {d, sums};
  }
  return {raw::binary(Binary::gelu_tanh_backward, raw::matmul(rows, weight), pre), Tensor()};
}

struct Mlp {
  Saved x, weight1, bias1, weight2, pre, hidden;

  Grads fused(const Tensor& g, const Needs& needs) const;
  Grads composed(const Tensor& g, const Needs& needs) const;
};

Grads Mlp::fused(const Tensor& g, const Needs& needs) const {
  Grads grads(5);
  const Tensor rows = as_rows(g.to(x().dtype())), inputs = as_rows(x());
  if (needs[3] || needs[4])
    std::tie(grads[3], grads[4]) = affine_gradients(3, rows, as_rows(hidden()), needs[3], needs[4]);
  if (!needs[0] && !needs[1] && !needs[2]) return grads;
  const auto [d, sums] = before_gelu(rows, weight2(), as_rows(pre()), needs[2]);
  if (sums.defined()) {
    grads[2] = sums;
    if (needs[1]) grads[1] = weight_gradient(1, d, inputs);
  } else if (needs[1] || needs[2]) {
    std::tie(grads[1], grads[2]) = affine_gradients(1, d, inputs, needs[1], needs[2]);
  }
  if (needs[0]) grads[0] = raw::reshape(raw::matmul(d, weight1()), x().shape());
  return grads;
}

// In ordinary ops, from x on.
Grads Mlp::composed(const Tensor& g, const Needs& needs) const {
  const auto rows_of = [](const Tensor& t) { return reshape(t, {-1, t.size(-1)}); };
  const Tensor rows = rows_of(g), inputs = rows_of(x());
  const Tensor before = linear(inputs, weight1(), bias1()), d = gelu_tanh_backward(matmul(rows, weight2()), before);
  Grads grads(5);
  if (needs[0]) grads[0] = reshape(matmul(d, weight1()), x().shape());
  if (needs[1]) grads[1] = matmul(d.t(), inputs);
  if (needs[2]) grads[2] = sum(d, {0});
  if (needs[3]) grads[3] = matmul(rows.t(), gelu_tanh(before));
  if (needs[4]) grads[4] = sum(rows, {0});
  return grads;
}

}  // namespace

Tensor gelu_mlp(const Tensor& x_, const Tensor& weight1_, const Tensor& bias1_, const Tensor& weight2_,
                const Tensor& bias2_) {
  if (context().fp8 && context().autocast) return linear(gelu_tanh(linear(x_, weight1_, bias1_)), weight2_, bias2_);
  const auto [x, weight1, bias1, weight2, bias2] = enter(ops::gelu_mlp, x_, weight1_, bias1_, weight2_, bias2_);
  return speaking_as("gelu_mlp", [&, &x = x, &weight1 = weight1, &bias1 = bias1, &weight2 = weight2, &bias2 = bias2] {
    raw::check_linear(x, weight1, bias1);
    const auto [hidden, pre] = gelu_of_linear(x, weight1, bias1);
    Tensor y = raw::linear(hidden, weight2, bias2);
    return record(ops::gelu_mlp, std::move(y), {x, weight1, bias1, weight2, bias2},
                  [kept = Mlp{save(x), save(weight1), save(bias1), save(weight2), save(pre), save(hidden)}](
                      const Tensor& g, const Needs& needs) {
                    return context().grad_mode || g.numel() == 0 ? kept.composed(g, needs) : kept.fused(g, needs);
                  });
  });
}

}  // namespace loom
