// Tensors in memory of the host that a GPU reads and writes by itself (page-locked). Their copies can be left to the
// device: x.to(device, /*non_blocking=*/true). Memory of a tensor that is gone is not used again before its copies are
// over; memory of one that is written to is the writer's affair.
#pragma once

#include <loom/tensor/tensor.h>

namespace loom {

// Of the CPU, contents undefined. Memory comes from a pool, as pinning pages is slow. Throws where there is no
// `device`.
Tensor empty_pinned(const Dims& shape, DType dtype, Device device = Device::cuda);
// A dense copy there; x itself where it is pinned and dense. Throws for tensors of other devices than the CPU.
Tensor pin_memory(const Tensor& x, Device device = Device::cuda);
bool is_pinned(const Tensor& x, Device device = Device::cuda);  // for whichever GPU, as `device` knows

}  // namespace loom
