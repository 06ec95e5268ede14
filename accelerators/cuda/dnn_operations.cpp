#include <loom/accelerators/cuda/dnn_operations.h>

namespace loom::cuda {

void check_dnn(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS) [[unlikely]]
    fail(what, ": ", dnn().error_string(status));
}

Descriptor::Descriptor(cudnnBackendDescriptorType_t type) {
  check_dnn(dnn().create_descriptor(type, &raw_), "cudnnBackendCreateDescriptor");
}

void Descriptor::put_raw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                         const void* values) {
  check_dnn(dnn().set_attribute(raw_, name, type, count, values), "cudnnBackendSetAttribute");
}

namespace {

cudnnDataType_t type_of(DType t) {
  switch (t) {
    case DType::f64:
      return CUDNN_DATA_DOUBLE;
    case DType::f16:
      return CUDNN_DATA_HALF;
    case DType::bf16:
      return CUDNN_DATA_BFLOAT16;
    case DType::i64:
      return CUDNN_DATA_INT64;
    case DType::i32:
      return CUDNN_DATA_INT32;
    case DType::boolean:
      return CUDNN_DATA_BOOLEAN;
    default:
      return CUDNN_DATA_FLOAT;
  }
}

std::span<const int64_t> list(const Dims& dims) { return dims; }

Descriptor tensor_of(const GraphTensor& t, int64_t uid) {
  Descriptor out(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  out.put(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, type_of(t.dtype));
  out.put(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, list(t.shape));
  out.put(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, list(t.strides));
  out.put(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, uid);
  out.put(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, int64_t{16});
  out.put(CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, t.kind == GraphTensor::Kind::between);
  out.put(CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, t.kind == GraphTensor::Kind::number);
  out.finalize();
  return out;
}

// A graph's nodes as operations; what they are made of is kept in `parts`.
class Operations {
 public:
  Operations(const Graph& graph, std::vector<Descriptor>& parts) : graph_(graph), parts_(parts) {
    for (size_t i = 0; i < graph.tensors.size(); ++i) tensors_.push_back(keep(tensor_of(graph.tensors[i], uid_of(i))));
    for (const GraphNode& node : graph.nodes) all_.push_back(keep(operation(node)));
  }
  const std::vector<cudnnBackendDescriptor_t>& all() const { return all_; }

 private:
  cudnnBackendDescriptor_t keep(Descriptor&& d) {
    parts_.push_back(std::move(d));
    return parts_.back().get();
  }
  void put_tensor(Descriptor& op, cudnnBackendAttributeName_t name, int tensor) {
    op.put(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, tensors_[static_cast<size_t>(tensor)]);
  }
  const GraphTensor& tensor(int i) const { return graph_.tensors[static_cast<size_t>(i)]; }

  Descriptor operation(const GraphNode& node) {
    switch (node.op) {
      case GraphOp::conv:
      case GraphOp::conv_grad_input:
      case GraphOp::conv_grad_weight:
        return convolution(node);
      case GraphOp::matmul:
        return matmul(node);
      case GraphOp::largest:
      case GraphOp::sum:
        return reduction(node);
      case GraphOp::random:
        return random(node);
      case GraphOp::reshape: {
        Descriptor op(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
        put_tensor(op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, node.a);
        put_tensor(op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, node.y);
        op.finalize();
        return op;
      }
      default:
        return pointwise(node);
    }
  }

  Descriptor convolution(const GraphNode& node) {
    const ConvGeometry& g = graph_.geometry;
    Descriptor conv(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    const auto sums = tensor(node.y).dtype == DType::f64 ? CUDNN_DATA_DOUBLE : CUDNN_DATA_FLOAT;
    conv.put(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, sums);
    conv.put(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, CUDNN_CROSS_CORRELATION);
    conv.put(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, int64_t{2});
    conv.put(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, std::span<const int64_t>(g.padding));
    conv.put(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, std::span<const int64_t>(g.padding));
    conv.put(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, std::span<const int64_t>(g.stride));
    conv.put(CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, std::span<const int64_t>(g.dilation));
    conv.finalize();
    const cudnnBackendDescriptor_t kept = keep(std::move(conv));
    struct Names {
      cudnnBackendDescriptorType_t type;
      cudnnBackendAttributeName_t y, a, b, conv, alpha, beta;
    };
    const Names names = node.op == GraphOp::conv ? Names{CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                                                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                                                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                                                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                                                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                                                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                                                         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA}
                        : node.op == GraphOp::conv_grad_input
                            ? Names{CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA}
                            : Names{CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
    Descriptor op(names.type);
    put_tensor(op, names.y, node.y);
    put_tensor(op, names.a, node.a);
    put_tensor(op, names.b, node.b);
    op.put(names.conv, CUDNN_TYPE_BACKEND_DESCRIPTOR, kept);
    if (sums == CUDNN_DATA_DOUBLE) {
      op.put(names.alpha, CUDNN_TYPE_DOUBLE, 1.0);
      op.put(names.beta, CUDNN_TYPE_DOUBLE, 0.0);
    } else {
      op.put(names.alpha, CUDNN_TYPE_FLOAT, 1.0f);
      op.put(names.beta, CUDNN_TYPE_FLOAT, 0.0f);
    }
    op.finalize();
    return op;
  }

  Descriptor matmul(const GraphNode& node) {
    Descriptor product(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    product.put(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
    product.finalize();
    const cudnnBackendDescriptor_t kept = keep(std::move(product));
    Descriptor op(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    put_tensor(op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, node.a);
    put_tensor(op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, node.b);
    put_tensor(op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, node.y);
    op.put(CUDNN_ATTR_OPERATION_MATMUL_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, kept);
    op.finalize();
    return op;
  }

  Descriptor reduction(const GraphNode& node) {
    Descriptor reduce(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    reduce.put(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
    reduce.put(CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE,
               node.op == GraphOp::sum ? CUDNN_REDUCE_TENSOR_ADD : CUDNN_REDUCE_TENSOR_MAX);
    reduce.finalize();
    const cudnnBackendDescriptor_t kept = keep(std::move(reduce));
    Descriptor op(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    put_tensor(op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, node.a);
    put_tensor(op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, node.y);
    op.put(CUDNN_ATTR_OPERATION_REDUCTION_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, kept);
    op.finalize();
    return op;
  }

  Descriptor random(const GraphNode& node) {
    Descriptor draw(CUDNN_BACKEND_RNG_DESCRIPTOR);
    draw.put(CUDNN_ATTR_RNG_DISTRIBUTION, CUDNN_TYPE_RNG_DISTRIBUTION, CUDNN_RNG_DISTRIBUTION_BERNOULLI);
    draw.put(CUDNN_ATTR_RNG_BERNOULLI_DIST_PROBABILITY, CUDNN_TYPE_DOUBLE, graph_.keep);
    draw.finalize();
    const cudnnBackendDescriptor_t kept = keep(std::move(draw));
    Descriptor op(CUDNN_BACKEND_OPERATION_RNG_DESCRIPTOR);
    put_tensor(op, CUDNN_ATTR_OPERATION_RNG_YDESC, node.y);
    put_tensor(op, CUDNN_ATTR_OPERATION_RNG_SEED, node.a);
    put_tensor(op, CUDNN_ATTR_OPERATION_RNG_OFFSET_DESC, node.b);
    op.put(CUDNN_ATTR_OPERATION_RNG_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, kept);
    op.finalize();
    return op;
  }

  static cudnnPointwiseMode_t mode_of(GraphOp op) {
    switch (op) {
      case GraphOp::multiply:
        return CUDNN_POINTWISE_MUL;
      case GraphOp::add:
        return CUDNN_POINTWISE_ADD;
      case GraphOp::subtract:
        return CUDNN_POINTWISE_SUB;
      case GraphOp::divide:
        return CUDNN_POINTWISE_DIV;
      case GraphOp::exponential:
        return CUDNN_POINTWISE_EXP;
      case GraphOp::logarithm:
        return CUDNN_POINTWISE_LOG;
      case GraphOp::position:
        return CUDNN_POINTWISE_GEN_INDEX;
      case GraphOp::at_least:
        return CUDNN_POINTWISE_CMP_GE;
      case GraphOp::identity:
        return CUDNN_POINTWISE_IDENTITY;
      default:
        return CUDNN_POINTWISE_BINARY_SELECT;
    }
  }

  Descriptor pointwise(const GraphNode& node) {
    const DType result = tensor(node.y).dtype;
    Descriptor mode(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    mode.put(CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, mode_of(node.op));
    mode.put(CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE,
             is_integral(result) ? type_of(result) : CUDNN_DATA_FLOAT);
    if (node.op == GraphOp::position)
      mode.put(CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, static_cast<int64_t>(node.axis));
    mode.finalize();
    const cudnnBackendDescriptor_t kept = keep(std::move(mode));
    Descriptor op(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    op.put(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, kept);
    put_tensor(op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, node.a);
    if (node.b >= 0) put_tensor(op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, node.b);
    if (node.condition >= 0) put_tensor(op, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, node.condition);
    put_tensor(op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, node.y);
    op.finalize();
    return op;
  }

  const Graph& graph_;
  std::vector<Descriptor>& parts_;
  std::vector<cudnnBackendDescriptor_t> tensors_, all_;
};

}  // namespace

Descriptor operation_graph(const Graph& graph, std::vector<Descriptor>& parts) {
  parts.reserve(parts.size() + graph.tensors.size() + 2 * graph.nodes.size());
  const Operations operations(graph, parts);
  Descriptor out(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  out.put(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, std::span(operations.all()));
  return out;
}

}  // namespace loom::cuda
