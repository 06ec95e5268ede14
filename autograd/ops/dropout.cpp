#include <loom/accelerators/random.h>

#include <loom/autograd/grad_mode.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops/elementwise.h>
#include <loom/autograd/ops/neural.h>
#include <loom/tensor/device_graph.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

Tensor dropout(const Tensor& input, double p, bool training) {
  check(p >= 0 && p <= 1, "dropout: given probability ", p, ", expected one in [0, 1]");
  const auto [x] = enter(ops::dropout, input);
  check(is_floating(x.dtype()), "dropout: given x of ", x.dtype(), ", expected a floating dtype");
  if (!training || p == 0) return x;
  const uint32_t kept = draw::values_kept(p);
  const double scale = kept > 0 ? 65536.0 / kept : 0;
  const Tensor y = empty(x.shape(), {x.dtype(), x.device()}), mask = empty(x.shape(), {DType::boolean, x.device()});
  // Stream 0 is common to all ranks; replicas draw from their own.
  const Philox state = context().generator.draw(x.numel(), static_cast<uint64_t>(context().data_rank) + 1);
  check_drawn_on_device("dropout", x.device());
  if (x.numel() > 0) accelerator(x.device()).dropout(y, mask, x, kept, scale, state);
  return record(ops::dropout, y, {x}, [mask = save(mask), scale](const Tensor& g) -> Grads {
    if (context().grad_mode) return {g * (mask().to(g.dtype()) * scale)};
    const Tensor dx = empty(g.shape(), {g.dtype(), g.device()});
    if (g.numel() > 0) accelerator(g.device()).dropout_grad(dx, g, mask(), scale);
    return {dx};
  });
}

}  // namespace loom
