#include <loom/tensor/raw/operand.h>

namespace loom::raw {

Tensor softmax(const Tensor& x, int dim, bool log) {
  const char* op = log ? "log_softmax" : "softmax";
  check_floating(op, x);
  const Tensor input = at_least_1d(x);
  const int d = normalize_dim(op, dim, input.dim());
  Tensor y = uninitialized(op, x.shape(), x.dtype(), x.device());
  if (y.numel() > 0) accelerator(x.device()).softmax(at_least_1d(y), input, d, log);
  return y;
}

Tensor softmax_grad(const Tensor& dy, const Tensor& y, int dim, bool log) {
  const char* op = log ? "log_softmax_grad" : "softmax_grad";
  check(dy.shape() == y.shape(), op, ": dy of shape ", dy.shape(), " and y of shape ", y.shape(), " differ");
  check_same_device(op, dy, y);
  check_same_dtype(op, dy, y);
  const Tensor gradient = at_least_1d(dy), output = at_least_1d(y);
  const int d = normalize_dim(op, dim, output.dim());
  Tensor dx = uninitialized(op, y.shape(), y.dtype(), y.device());
  if (dx.numel() > 0) accelerator(y.device()).softmax_grad(at_least_1d(dx), gradient, output, d, log);
  return dx;
}

}  // namespace loom::raw
