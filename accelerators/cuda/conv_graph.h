// Convolutions as graphs of cuDNN.
#pragma once

#include <loom/accelerators/cuda/graph.h>

namespace loom::cuda {

// One convolution or gradient: y of a and b as GraphOp names them. Dense operands, all channels last or all not.
struct ConvCall {
  GraphOp op = GraphOp::conv;
  DType dtype = DType::f32;
  bool channels_last = false;
  Dims y, a, b;
  ConvGeometry geometry;
};

// Strides of a dense [N, C, H, W] in memory.
Dims image_strides(const Dims& shape, bool channels_last);

// Memory: a, b, y.
Graph conv_graph(const ConvCall& call);

}  // namespace loom::cuda
