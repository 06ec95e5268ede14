#include <loom/accelerators/cuda/dnn_plan.h>

#include <algorithm>

namespace loom::cuda {

Descriptor described_device(const std::string& json) {
  Descriptor out(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  out.put(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, std::span(json.c_str(), json.size() + 1));
  out.finalize();
  return out;
}

namespace {

// The kernels that the library proposes, best first.
std::vector<Descriptor> proposals(const Descriptor& graph, const DnnTarget& target, cudnnBackendHeurMode_t mode) {
  std::vector<Descriptor> found;
  Descriptor heuristics(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristics.put(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  heuristics.put(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, mode);
  if (target.described != nullptr) heuristics.put(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *target.described);
  if (dnn().finalize(heuristics.get()) != CUDNN_STATUS_SUCCESS) return found;
  int64_t count = 0;
  check_dnn(dnn().get_attribute(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0,
                                &count, nullptr),
            "cuDNN's heuristics");
  std::vector<cudnnBackendDescriptor_t> raw;
  for (int64_t i = 0; i < count; ++i) raw.push_back(found.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR).get());
  check_dnn(dnn().get_attribute(heuristics.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count,
                                &count, raw.data()),
            "cuDNN's heuristics");
  found.erase(found.begin() + count, found.end());
  return found;
}

std::vector<cudnnBackendNumericalNote_t> notes_of(const Descriptor& config) {
  const Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t raw = engine.get();
  int64_t count = 0;
  check_dnn(
      dnn().get_attribute(config.get(), CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &raw),
      "cuDNN's engine");
  std::vector<cudnnBackendNumericalNote_t> notes(CUDNN_NUMERICAL_NOTE_TYPE_COUNT);
  check_dnn(dnn().get_attribute(engine.get(), CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes.data()),
            "cuDNN's notes");
  notes.resize(static_cast<size_t>(count));
  return notes;
}

// f32 means f32, sums are of f32, bits are the same each time, if not told otherwise; no transforms that lose digits.
bool is_allowed(const std::vector<cudnnBackendNumericalNote_t>& notes, DType io, const DnnRules& rules) {
  return std::ranges::none_of(notes, [&](cudnnBackendNumericalNote_t note) {
    switch (note) {
      case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
        return !rules.any_order;
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
  if (dnn().finalize(made.get()) != CUDNN_STATUS_SUCCESS) return false;
  int64_t count = 0;
  check_dnn(dnn().get_attribute(made.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count,
                                &plan.workspace),
            "cuDNN's workspace");
  if (plan.workspace > rules.most_workspace) return false;
  plan.plan = std::move(made);
  return true;
}

// Null where the library refuses an operation or all of them together.
std::unique_ptr<Descriptor> described(const Graph& graph, const DnnTarget& target, std::vector<Descriptor>& parts) {
  try {
    auto out = std::make_unique<Descriptor>(operation_graph(graph, parts));
    if (target.described == nullptr) out->put(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, target.handle);
    out->finalize();
    return out;
  } catch (const Error&) {
    return nullptr;
  }
}

// With what tells tensors apart, and without kernels.
Plan blank(const Graph& graph) {
  Plan plan;
  for (size_t i = 0; i < graph.tensors.size(); ++i) {
    const GraphTensor& t = graph.tensors[i];
    if (t.kind == GraphTensor::Kind::memory) plan.memory.push_back(uid_of(i));
    if (t.kind == GraphTensor::Kind::number) plan.numbers.emplace_back(uid_of(i), t.value);
  }
  return plan;
}

}  // namespace

std::vector<std::shared_ptr<const Plan>> make_plans(const Graph& graph, const DnnTarget& target, const DnnRules& rules,
                                                    size_t most) {
  std::vector<std::shared_ptr<const Plan>> out;
  auto parts = std::make_shared<std::vector<Descriptor>>();
  const auto whole = described(graph, target, *parts);
  if (whole == nullptr) return out;
  const DType io = graph.tensors[0].dtype;
  // Fallbacks are slow: they are for what nothing else does.
  for (const auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
    if (!out.empty()) break;
    for (Descriptor& config : proposals(*whole, target, mode)) {
      if (out.size() == most) break;
      auto plan = std::make_shared<Plan>(blank(graph));
      if (!is_allowed(notes_of(config), io, rules) || !finish(*plan, config, target, rules)) continue;
      parts->push_back(std::move(config));
      plan->parts = parts;
      out.push_back(std::move(plan));
    }
  }
  parts->push_back(std::move(*whole));
  return out;
}

}  // namespace loom::cuda
