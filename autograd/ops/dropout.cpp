#include <loom/autograd/graph.h>
#include <loom/autograd/ops/elementwise.h>
#include <loom/autograd/ops/neural.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

Tensor dropout(const Tensor& input, double p, bool training) {
  check(p >= 0 && p <= 1, "dropout: given probability ", p, ", expected one in [0, 1]");
  const auto [x] = enter(ops::dropout, input);
  check(is_floating(x.dtype()), "dropout: given x of ", x.dtype(), ", expected a floating dtype");
  if (!training || p == 0) return x;
  // Stream 0 is common to all ranks; replicas draw from their own.
  const auto stream = static_cast<uint64_t>(context().data_rank) + 1;
  const Tensor mask = raw::random(Random::bernoulli, x.shape(), 1 - p, 0, {x.dtype(), x.device()}, stream);
  if (p < 1) raw::binary_into(Binary::mul, mask, Tensor(1 / (1 - p)));
  return record(ops::dropout, raw::binary(Binary::mul, x, mask), {x},
                [mask = save(mask)](const Tensor& g) -> Grads { return {g * mask()}; });
}

}  // namespace loom
