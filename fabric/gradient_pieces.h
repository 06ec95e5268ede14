// All gradients at once, for kernels that take them so.
#pragma once

#include <vector>

#include <loom/accelerators/fused.h>
#include <loom/tensor/tensor.h>

namespace loom {

// Kernels that take all of these; null where there are none, or the gradients lie on several devices or with gaps.
FusedKernels* kernels_for(const std::vector<Tensor>& gradients);
std::vector<UpdatePiece> pieces_of(const std::vector<Tensor>& gradients);

}  // namespace loom
