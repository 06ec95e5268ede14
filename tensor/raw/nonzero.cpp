#include <memory>

#include <loom/accelerators/positions.h>
#include <loom/tensor/raw/operand.h>

namespace loom::raw {

// How many there are is known only after looking, so this is done on the host.
Tensor nonzero(const Tensor& x) {
  const Tensor set = contiguous(to_device(cast(x, DType::boolean), Device()));
  const std::unique_ptr<const Positions> found = accelerator(Device()).positions(set);
  const Tensor places = uninitialized("nonzero", {found->count(), x.dim()}, DType::i64, Device());
  if (places.numel() > 0) found->list(places);
  return to_device(places, x.device());
}

}  // namespace loom::raw
