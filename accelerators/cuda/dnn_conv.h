// Convolutions by cuDNN.
#pragma once

#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/graph.h>

namespace loom::cuda {

// y of a and b as `op` names them (graph.h). False where cuDNN has nothing for it: nothing has been done then.
bool conv_by_dnn(Cuda& accelerator, Gpu& gpu, GraphOp op, const View& y, const View& a, const View& b,
                 const ConvGeometry& g);

}  // namespace loom::cuda
