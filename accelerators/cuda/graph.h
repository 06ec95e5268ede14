// Small graphs of operations over tensors, which cuDNN turns into kernels: plain data.
#pragma once

#include <vector>

#include <loom/accelerators/accelerator.h>

namespace loom::cuda {

struct GraphTensor {
  enum class Kind : uint8_t { memory, between, number };  // given at each run; never in memory; a constant
  Kind kind = Kind::memory;
  DType dtype = DType::f32;
  Dims shape, strides;
  float value = 0;
};

enum class GraphOp : uint8_t {
  conv,              // y = conv(a = x, b = w)
  conv_grad_input,   // y = dx of a = dy, b = w
  conv_grad_weight,  // y = dw of a = dy, b = x
  matmul,
  multiply,
  add,
  subtract,
  divide,
  exponential,
  logarithm,
  position,  // y = the index along `axis`
  at_least,  // y = a >= b
  select,    // y = condition ? a : b
  largest,   // along the axes where y's extent is 1
  sum,       // likewise; where y's extent divides a's, of neighbours
  identity,
  reshape,  // a's elements under y's shape and strides
  random,   // y = 1 with probability Graph::keep, else 0; a, b: seed and offset
};

struct GraphNode {
  GraphOp op;
  int y, a, b = -1, condition = -1;  // indices of tensors
  int axis = 0;
};

struct Graph {
  std::vector<GraphTensor> tensors;
  std::vector<GraphNode> nodes;
  ConvGeometry geometry;  // of convolutions
  double keep = 1;

  int add(GraphTensor tensor) {
    tensors.push_back(std::move(tensor));
    return static_cast<int>(tensors.size()) - 1;
  }
  int memory(DType t, const Dims& shape, const Dims& strides) {
    return add({GraphTensor::Kind::memory, t, shape, strides});
  }
  int between(DType t, const Dims& shape) {
    return add({GraphTensor::Kind::between, t, shape, row_major_strides(shape)});
  }
  int number(float value, int rank) {
    const Dims ones = Dims::filled(rank, 1);
    return add({GraphTensor::Kind::number, DType::f32, ones, ones, value});
  }
  // The node's result, of a new tensor between nodes.
  int then(GraphOp op, DType t, const Dims& shape, int a, int b = -1, int condition = -1, int axis = 0) {
    const int y = between(t, shape);
    nodes.push_back({op, y, a, b, condition, axis});
    return y;
  }
};

}  // namespace loom::cuda
