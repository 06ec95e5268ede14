#include <loom/accelerators/cuda/dnn_plan.h>

#include <algorithm>
#include <optional>

namespace loom::cuda {

void check_dnn(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS) [[unlikely]]
    fail(what, ": ", cudnnGetErrorString(status));
}

Descriptor::Descriptor(cudnnBackendDescriptorType_t type) {
  check_dnn(cudnnBackendCreateDescriptor(type, &raw_), "cudnnBackendCreateDescriptor");
}

void Descriptor::put_raw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                         const void* values) {
  check_dnn(cudnnBackendSetAttribute(raw_, name, type, count, values), "cudnnBackendSetAttribute");
}

Descriptor described_device(const std::string& json) {
  Descriptor out(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  out.put(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, std::span(json.c_str(), json.size() + 1));
  out.finalize();
  return out;
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
class Lowering {
 public:
  Lowering(const Graph& graph, std::vector<Descriptor>& parts) : graph_(graph), parts_(parts) {
    for (size_t i = 0; i < graph.tensors.size(); ++i) tensors_.push_back(keep(tensor_of(graph.tensors[i], uid(i))));
    for (const GraphNode& node : graph.nodes) operations_.push_back(keep(operation(node)));
  }
  static int64_t uid(size_t tensor) { return static_cast<int64_t>(tensor) + 1; }
  const std::vector<cudnnBackendDescriptor_t>& operations() const { return operations_; }

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
    const Names names =
        node.op == GraphOp::conv
            ? Names{CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA}
        : node.op == GraphOp::conv_grad_input
            ? Names{CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA}
            : Names{CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
    Descriptor op(names.type);
    put_tensor(op, names.y, node.y);
    put_tensor(op, names.a, node.a);
    put_tensor(op, names.b, node.b);
    op.put(names.conv, CUDNN_TYPE_BACKEND_DESCRIPTOR, kept);
    op.put(names.alpha, CUDNN_TYPE_DOUBLE, 1.0);
    op.put(names.beta, CUDNN_TYPE_DOUBLE, 0.0);
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
  std::vector<cudnnBackendDescriptor_t> tensors_, operations_;
};

// The kernels that the library proposes, best first.
std::vector<Descriptor> proposals(const Descriptor& graph, const DnnTarget& target, cudnnBackendHeurMode_t mode) {
  std::vector<Descriptor> found;
  Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristics.put(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  heuristics.put(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, mode);
  if (target.described != nullptr) heuristics.put(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *target.described);
  if (cudnnBackendFinalize(heuristics.get()) != CUDNN_STATUS_SUCCESS) return found;
  int64_t count = 0;
  check_dnn(cudnnBackendGetAttribute(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0,
                                     &count, nullptr),
            "cuDNN's heuristics");
  std::vector<cudnnBackendDescriptor_t> raw;
  for (int64_t i = 0; i < count; ++i) raw.push_back(found.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR).get());
  check_dnn(cudnnBackendGetAttribute(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                     count, &count, raw.data()),
            "cuDNN's heuristics");
  found.erase(found.begin() + count, found.end());
  return found;
}

std::vector<cudnnBackendNumericalNote_t> notes_of(const Descriptor& config) {
  const Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t raw = engine.get();
  int64_t count = 0;
  check_dnn(cudnnBackendGetAttribute(config.get(), CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count,
                                     &raw),
            "cuDNN's engine");
  std::vector<cudnnBackendNumericalNote_t> notes(CUDNN_NUMERICAL_NOTE_TYPE_COUNT);
  check_dnn(cudnnBackendGetAttribute(engine.get(), CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                     CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes.data()),
            "cuDNN's notes");
  notes.resize(static_cast<size_t>(count));
  return notes;
}

// f32 means f32, sums are of f32, bits are the same each time; no transforms that lose digits.
bool is_allowed(const std::vector<cudnnBackendNumericalNote_t>& notes, DType io, const DnnRules& rules) {
  return std::ranges::none_of(notes, [&](cudnnBackendNumericalNote_t note) {
    switch (note) {
      case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
      case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION:
      case CUDNN_NUMERICAL_NOTE_FFT:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13:
        return true;
      case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
      case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:
        return io == DType::f32 && !rules.tf32;
      default:
        return false;
    }
  });
}

// The plan of one proposal; false where it cannot be had, or takes too much memory.
bool finish(Plan& plan, const Descriptor& config, const DnnTarget& target, const DnnRules& rules) {
  Descriptor made(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  made.put(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
  if (target.described != nullptr)
    made.put(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, *target.described);
  else
    made.put(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, target.handle);
  if (cudnnBackendFinalize(made.get()) != CUDNN_STATUS_SUCCESS) return false;
  int64_t count = 0;
  check_dnn(cudnnBackendGetAttribute(made.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count,
                                     &plan.workspace),
            "cuDNN's workspace");
  if (plan.workspace > rules.most_workspace) return false;
  plan.plan = std::move(made);
  return true;
}

}  // namespace

std::unique_ptr<Plan> make_plan(const Graph& graph, const DnnTarget& target, const DnnRules& rules) {
  auto plan = std::make_unique<Plan>();
  plan->parts.reserve(graph.tensors.size() + 2 * graph.nodes.size() + 2);
  const Lowering lowered(graph, plan->parts);
  for (size_t i = 0; i < graph.tensors.size(); ++i) {
    const GraphTensor& t = graph.tensors[i];
    if (t.kind == GraphTensor::Kind::memory) plan->memory.push_back(Lowering::uid(i));
    if (t.kind == GraphTensor::Kind::number) plan->numbers.emplace_back(Lowering::uid(i), t.value);
  }
  Descriptor whole(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  whole.put(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, std::span(lowered.operations()));
  if (target.described == nullptr) whole.put(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, target.handle);
  if (cudnnBackendFinalize(whole.get()) != CUDNN_STATUS_SUCCESS) return nullptr;
  const DType io = graph.tensors[0].dtype;
  for (const auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK})
    for (Descriptor& config : proposals(whole, target, mode)) {
      if (!is_allowed(notes_of(config), io, rules) || !finish(*plan, config, target, rules)) continue;
      plan->parts.push_back(std::move(whole));
      plan->parts.push_back(std::move(config));
      return plan;
    }
  return nullptr;
}

}  // namespace loom::cuda
