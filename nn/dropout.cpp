#include <loom/nn/dropout.h>

#include <loom/autograd/ops/elementwise.h>
#include <loom/tensor/create.h>

namespace loom::nn {

namespace {

double checked_probability(const char* layer, double p) {
  check(p >= 0 && p <= 1, layer, ": the probability has to be between 0 and 1, got ", p);
  return p;
}

}  // namespace

Dropout::Dropout(double probability) : p(checked_probability("Dropout", probability)) {}

Dropout2d::Dropout2d(double probability) : p(checked_probability("Dropout2d", probability)) {}

Tensor Dropout2d::operator()(const Tensor& x) const {
  if (!training) return x;
  check(x.dim() >= 2, "Dropout2d: expects [N, C, ..], got ", x.shape());
  Dims channels = Dims::filled(x.dim(), 1);
  channels[0] = x.size(0);
  channels[1] = x.size(1);
  return x * dropout(ones(channels, {x.dtype(), x.device()}), p);
}

}  // namespace loom::nn
