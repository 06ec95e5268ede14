#include <loom/autograd/compose.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops/derivatives.h>
#include <loom/autograd/ops/elementwise.h>
#include <loom/autograd/ops/neural.h>
#include <loom/autograd/ops/reduce.h>
#include <loom/autograd/ops/speaking_as.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

Tensor softmax(const Tensor& input, int dim) {
  const auto [x] = enter(ops::softmax, input);
  return record(ops::softmax, raw::softmax(x, dim, false), {x},
                [dim](const Tensor& g, const Tensor& y) -> Grads { return {softmax_grad(g, y, dim)}; });
}

Tensor log_softmax(const Tensor& input, int dim) {
  const auto [x] = enter(ops::log_softmax, input);
  return record(ops::log_softmax, raw::softmax(x, dim, true), {x},
                [dim](const Tensor& g, const Tensor& y) -> Grads { return {log_softmax_grad(g, y, dim)}; });
}

Tensor softmin(const Tensor& x, int dim) {
  return speaking_as("softmin", [&] { return softmax(-x, dim); });
}

// dx = y * (dy - sum(y * dy)); linear in dy, quadratic in y.
Tensor softmax_grad(const Tensor& gradient, const Tensor& output, int dim) {
  const auto [dy, y] = enter(ops::softmax_grad, gradient, output);
  const auto rule = [dy = save(dy), y = save(y), dim](const Tensor& h, const Needs& needs) {
    Grads grads(2);
    if (needs[0]) grads[0] = softmax_grad(h, y(), dim);
    const Tensor d = wide(dy());
    if (needs[1]) grads[1] = h * (d - sum(y() * d, {dim}, true)) - d * sum(y() * wide(h), {dim}, true);
    return grads;
  };
  return record(ops::softmax_grad, raw::softmax_grad(dy, y, dim, false), {dy, y}, rule);
}

// dx = dy - exp(y) * sum(dy).
Tensor log_softmax_grad(const Tensor& gradient, const Tensor& output, int dim) {
  const auto [dy, y] = enter(ops::log_softmax_grad, gradient, output);
  const auto rule = [dy = save(dy), y = save(y), dim](const Tensor& h, const Needs& needs) {
    Grads grads(2);
    if (needs[0]) grads[0] = h - sum(h * exp(wide(y())), {dim}, true);
    if (needs[1]) grads[1] = -h * exp(wide(y())) * sum(wide(dy()), {dim}, true);
    return grads;
  };
  return record(ops::log_softmax_grad, raw::softmax_grad(dy, y, dim, true), {dy, y}, rule);
}

}  // namespace loom
