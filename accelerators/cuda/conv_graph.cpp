#include <loom/accelerators/cuda/conv_graph.h>

namespace loom::cuda {

Dims image_strides(const Dims& shape, bool channels_last) {
  if (!channels_last) return row_major_strides(shape);
  return {shape[1] * shape[2] * shape[3], 1, shape[3] * shape[1], shape[1]};
}

Graph conv_graph(const ConvCall& call) {
  Graph graph;
  const auto image = [&](const Dims& shape) {
    return graph.memory(call.dtype, shape, image_strides(shape, call.channels_last));
  };
  const int a = image(call.a), b = image(call.b), y = image(call.y);
  graph.nodes.push_back({call.op, y, a, b});
  graph.geometry = call.geometry;
  return graph;
}

}  // namespace loom::cuda
