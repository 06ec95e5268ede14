#include <loom/accelerators/cuda/matmul.h>

#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include <loom/accelerators/cuda/matmul_call.h>
#include <loom/accelerators/cuda/precision.h>
#include <loom/accelerators/cuda/runtime.h>
#include <loom/accelerators/cuda/scratch.h>
#include <loom/accelerators/cuda/timed.h>
#include <loom/accelerators/quickest.h>

namespace loom::cuda {

namespace {

// NVIDIA's advice: 32 MiB from Hopper on, 4 MiB before.
size_t workspace_bytes(const Gpu& gpu) { return size_t{gpu.properties().major >= 9 ? 32u : 4u} << 20; }

// The library on one device: its handle, a workspace for each stream, the algorithms chosen so far. Never destroyed.
class Library {
 public:
  explicit Library(Gpu& gpu) : gpu_(gpu) {
    const DeviceScope scope(gpu.index());
    const CaptureRelaxed relaxed;
    check_lt(cublasLtCreate(&handle_), "cublasLtCreate");
  }
  cublasLtHandle_t handle() const { return handle_; }

  // Straight from the driver: it stays, and is not the program's.
  void* workspace(cudaStream_t stream) {
    const std::lock_guard lock(mutex_);
    void*& memory = workspaces_[stream];
    if (memory != nullptr) return memory;
    const DeviceScope scope(gpu_.index());
    const CaptureRelaxed relaxed;
    if (cudaMalloc(&memory, workspace_bytes(gpu_)) == cudaSuccess) return memory;
    (void)cudaGetLastError();
    gpu_.memory().empty_cache();
    check_cuda(cudaMalloc(&memory, workspace_bytes(gpu_)), "gemm: cudaMalloc of cuBLASLt's workspace");
    return memory;
  }

  // Of a product; without an algorithm the library has no kernel for it. settled: not to be looked for any more.
  struct Choice {
    std::optional<cublasLtMatmulAlgo_t> algorithm;
    bool settled = false;
  };
  std::optional<Choice> known(const MatmulKey& key) {
    const std::lock_guard lock(mutex_);
    const auto found = choices_.find(key);
    return found == choices_.end() ? std::nullopt : std::optional(found->second);
  }
  Choice remember(const MatmulKey& key, const Choice& choice) {
    const std::lock_guard lock(mutex_);
    if (choices_.size() >= most_choices) choices_.clear();
    return choices_[key] = choice;
  }

  // At most so many, the library's best first. Sums are split in ways that keep their order, and not in 16 bits.
  std::vector<cublasLtMatmulAlgo_t> proposals(const MatmulKey& key, MatmulCall& call, size_t most) {
    MatmulPreference preference;
    check_lt(cublasLtMatmulPreferenceInit(preference.get()), "cublasLtMatmulPreferenceInit");
    preference.put(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes(gpu_));
    preference.put(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    preference.put(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.alignments[1]);
    preference.put(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.alignments[0]);
    preference.put(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.alignments[2]);
    preference.put(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.alignments[2]);
    const DeviceScope scope(gpu_.index());
    std::vector<cublasLtMatmulHeuristicResult_t> results(most);
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle_, call.operation.get(), call.a.get(), call.b.get(), call.c.get(),
                                       call.c.get(), preference.get(), static_cast<int>(most), results.data(), &count);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) return {};
    check_lt(status, "cublasLtMatmulAlgoGetHeuristic");
    std::vector<cublasLtMatmulAlgo_t> out;
    out.reserve(most);
    for (const auto& result : std::span(results).first(static_cast<size_t>(count)))
      if (result.state == CUBLAS_STATUS_SUCCESS) out.push_back(result.algo);
    return out;
  }

 private:
  static constexpr size_t most_choices = 8192;

  Gpu& gpu_;
  cublasLtHandle_t handle_ = nullptr;
  std::mutex mutex_;
  std::map<cudaStream_t, void*> workspaces_;
  std::unordered_map<MatmulKey, Choice, MatmulKeyHash> choices_;
};

Library& library(Gpu& gpu) {
  static std::mutex mutex;
  static std::vector<Library*> made;
  const std::lock_guard lock(mutex);
  const auto at = static_cast<size_t>(gpu.index());
  if (made.size() <= at) made.resize(at + 1);
  if (made[at] == nullptr) made[at] = new Library(gpu);
  return *made[at];
}

// The product in this thread's stream, to where `to` is c; c is what is added.
void start(Gpu& gpu, Library& lt, const Matmul& p, MatmulCall& call, const cublasLtMatmulAlgo_t& algorithm, void* to) {
  const auto run = [&]<class T>(T alpha, T beta) {
    const DeviceScope scope(gpu.index());
    const cudaStream_t stream = gpu.stream();
    const bool captured = is_capturing(stream);  // the graph may be repeated in another stream
    const Scratch own(gpu, captured ? workspace_bytes(gpu) : 0);
    void* const workspace = captured ? own.as<void>() : lt.workspace(stream);
    check_lt(cublasLtMatmul(lt.handle(), call.operation.get(), &alpha, p.b, call.a.get(), p.a, call.b.get(), &beta, p.c,
                            call.c.get(), to, call.c.get(), &algorithm, workspace, workspace_bytes(gpu), stream),
             "cublasLtMatmul");
  };
  if (p.in == DType::f64)
    run(p.alpha, p.beta);
  else
    run(static_cast<float>(p.alpha), static_cast<float>(p.beta));
}

size_t bytes_of_c(const Matmul& p) {
  return static_cast<size_t>((p.batches - 1) * p.c_layout.step + (p.m - 1) * p.c_layout.leading + p.n) *
         item_size(p.out);
}

// The quickest of the library's proposals, with the operands themselves. Where the product reads what it may overwrite,
// its results go elsewhere meanwhile.
Library::Choice tuned(Gpu& gpu, Library& lt, const Matmul& p, const MatmulKey& key, MatmulCall& call) {
  constexpr size_t most = 8;
  const auto ways = lt.proposals(key, call, most);
  if (ways.empty()) return {.settled = true};
  size_t best = 0;
  if (ways.size() > 1) {
    const bool aside = p.beta != 0 || p.epilogue == Epilogue::gelu_grad;
    const auto once = [&](size_t way) {
      const Scratch elsewhere(gpu, aside ? bytes_of_c(p) : 0);
      start(gpu, lt, p, call, ways[way], aside ? elsewhere.as<void>() : p.c);
    };
    best = quickest(ways.size(), [&](size_t way) { return timed(gpu, [&] { once(way); }); }).value_or(0);
  }
  return {ways[best], true};
}

// Without timing, what the library takes for the best: in a capture that is not the last word.
Library::Choice choice_of(Gpu& gpu, Library& lt, const Matmul& p, const MatmulKey& key, MatmulCall& call) {
  const auto known = lt.known(key);
  if (known && (known->settled || !autotunes())) return *known;
  if (autotunes() && !is_captured(gpu)) return lt.remember(key, tuned(gpu, lt, p, key, call));
  if (known) return *known;
  const auto first = lt.proposals(key, call, 1);
  return lt.remember(key, {first.empty() ? std::nullopt : std::optional(first[0]), false});
}

}  // namespace

std::string matmul_library() {
  const size_t version = cublasLtGetVersion();
  return str("cuBLASLt ", version / 10000, ".", version / 100 % 100, ".", version % 100);
}

bool matmul(Gpu& gpu, const Matmul& p) {
  const bool tf32 = allows_tf32();
  Library& lt = library(gpu);
  MatmulCall call(p, tf32);
  const auto algorithm = choice_of(gpu, lt, p, key_of(p, tf32), call).algorithm;
  if (!algorithm && (p.bias != nullptr || p.epilogue != Epilogue::none || p.f8)) return false;
  check(algorithm.has_value(), "gemm: cuBLASLt has no algorithm for [", p.m, ", ", p.k, "] @ [", p.k, ", ", p.n,
        "] of ", p.in);
  start(gpu, lt, p, call, *algorithm, p.c);
  return true;
}

}  // namespace loom::cuda
