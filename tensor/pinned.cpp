#include <loom/tensor/pinned.h>

#include <cstring>

#include <loom/accelerators/accelerator.h>
#include <loom/tensor/create.h>
#include <loom/tensor/raw.h>

namespace loom {

Tensor empty_pinned(const Dims& shape, DType dtype, Device device) {
  Accelerator& gpu = accelerator(device);
  const size_t bytes = static_cast<size_t>(shape.numel()) * item_size(dtype);
  void* const memory = gpu.allocate_pinned(bytes);
  return from_blob(memory, shape, dtype, Device::cpu, [&gpu, memory] { gpu.release_pinned(memory); });
}

bool is_pinned(const Tensor& x, Device device) {
  if (x.device().kind != Device::cpu || x.numel() == 0 || device_count(Device::cuda) == 0) return false;
  return accelerator(device).is_pinned(View(x).data);
}

Tensor pin_memory(const Tensor& x, Device device) {
  check(x.device().kind == Device::cpu, "pin_memory: the tensor is on ", x.device(), ", only the CPU's can be pinned");
  if (is_pinned(x, device) && x.is_contiguous()) return x;
  Tensor y = empty_pinned(x.shape(), x.dtype(), device);
  if (y.numel() > 0) accelerator(Device::cpu).copy(y, x);
  return y;
}

}  // namespace loom
