// Attention by cuDNN's fused kernels, which keep no scores.
#pragma once

#include <loom/accelerators/cuda/cuda.h>

namespace loom::cuda {

// False where cuDNN has nothing for it: nothing has been done then.
bool attention_by_dnn(Cuda& accelerator, Gpu& gpu, const View& y, const View& lse, const Attention& a);
bool attention_grad_by_dnn(Cuda& accelerator, Gpu& gpu, const View& dq, const View& dk, const View& dv, const View& dy,
                           const View& y, const View& lse, const Attention& a);

}  // namespace loom::cuda
