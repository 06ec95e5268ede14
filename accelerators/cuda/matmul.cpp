#include <loom/accelerators/cuda/matmul.h>

#include <cublasLt.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include <loom/accelerators/cuda/precision.h>
#include <loom/accelerators/cuda/runtime.h>

namespace loom::cuda {

namespace {

void check_lt(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) [[unlikely]]
    fail(what, ": ", cublasLtGetStatusName(status), ": ", cublasLtGetStatusString(status));
}

cudaDataType_t type_of(Fp8 t) { return t == Fp8::e4m3 ? CUDA_R_8F_E4M3 : CUDA_R_8F_E5M2; }
cudaDataType_t type_of(DType t) {
  return t == DType::f64 ? CUDA_R_64F : t == DType::f32 ? CUDA_R_32F : t == DType::f16 ? CUDA_R_16F : CUDA_R_16BF;
}

// The bytes that an address is a multiple of, as far as kernels ask.
uint32_t alignment_of(const void* address) {
  const auto bits = reinterpret_cast<uintptr_t>(address);
  return std::min<uint32_t>(256, bits == 0 ? 256 : uint32_t{1} << std::min(std::countr_zero(bits), 8));
}

// All that the choice of an algorithm depends on. Numbers alone, so that they can be compared as such.
struct Key {
  std::array<int64_t, 7> extents;  // m, n, k, batches, leading dimensions
  std::array<int64_t, 3> steps;
  std::array<uint32_t, 3> alignments;
  uint32_t flags;  // dtypes, transpositions, bias, beta, tf32, epilogue, operands of 8 bits
  bool operator==(const Key&) const = default;
};
struct KeyHash {
  size_t operator()(const Key& key) const {
    uint64_t hash = 0xcbf29ce484222325;
    const auto take = [&](uint64_t value) { hash = (hash ^ value) * 0x9e3779b97f4a7c15, hash ^= hash >> 29; };
    for (const int64_t v : key.extents) take(static_cast<uint64_t>(v));
    for (const int64_t v : key.steps) take(static_cast<uint64_t>(v));
    for (const uint32_t v : key.alignments) take(v);
    take(key.flags);
    return hash;
  }
};

Key key_of(const Matmul& p, bool tf32) {
  uint32_t flags = static_cast<uint32_t>(p.in) | static_cast<uint32_t>(p.out) << 4 |
                   uint32_t{p.a_layout.transposed} << 8 | uint32_t{p.b_layout.transposed} << 9 |
                   uint32_t{p.bias != nullptr} << 10 | uint32_t{p.beta != 0} << 11 | uint32_t{tf32} << 12 |
                   static_cast<uint32_t>(p.epilogue) << 13 | uint32_t{p.sums != nullptr} << 16;
  if (p.f8)
    flags |= 1u << 17 | static_cast<uint32_t>(p.f8->a) << 18 | static_cast<uint32_t>(p.f8->b) << 19 |
             uint32_t{p.f8->fast} << 20;
  const uint32_t beside = std::min({alignment_of(p.bias), alignment_of(p.aux), alignment_of(p.sums)});
  return {{p.m, p.n, p.k, p.batches, p.a_layout.leading, p.b_layout.leading, p.c_layout.leading},
          {p.a_layout.step, p.b_layout.step, p.c_layout.step},
          {alignment_of(p.a), alignment_of(p.b), std::min(alignment_of(p.c), beside)},
          flags};
}

// A descriptor of the library, on the stack.
template <class Opaque, auto set>
struct Described {
  Opaque opaque{};
  Opaque* get() { return &opaque; }
  template <class A, class T>
  void put(A attribute, const T& value) {
    check_lt(set(get(), attribute, &value, sizeof value), "gemm: cuBLASLt's descriptor");
  }
};
using Operation = Described<cublasLtMatmulDescOpaque_t, cublasLtMatmulDescSetAttribute>;
using Preference = Described<cublasLtMatmulPreferenceOpaque_t, cublasLtMatmulPreferenceSetAttribute>;
using Layout = Described<cublasLtMatrixLayoutOpaque_t, cublasLtMatrixLayoutSetAttribute>;

// A row-major [rows, columns] is a column-major [columns, rows]; transposed, it is itself column-major.
Layout layout_of(cudaDataType_t t, int64_t rows, int64_t columns, const MatrixLayout& m, int64_t batches) {
  if (!m.transposed) std::swap(rows, columns);
  Layout out;
  check_lt(
      cublasLtMatrixLayoutInit(out.get(), t, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), m.leading),
      "cublasLtMatrixLayoutInit");
  if (batches > 1) {
    out.put(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, static_cast<int32_t>(batches));
    out.put(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, m.step);
  }
  return out;
}

// c^T = b^T a^T in column-major terms: b is the library's A, a its B.
struct Call {
  Operation operation;
  Layout a, b, c;

  Call(const Matmul& p, bool tf32)
      : a(layout_of(p.f8 ? type_of(p.f8->b) : type_of(p.in), p.k, p.n, p.b_layout, p.batches)),
        b(layout_of(p.f8 ? type_of(p.f8->a) : type_of(p.in), p.m, p.k, p.a_layout, p.batches)),
        c(layout_of(type_of(p.out), p.m, p.n, p.c_layout, p.batches)) {
    const auto compute = p.in == DType::f64           ? CUBLAS_COMPUTE_64F
                         : p.in == DType::f32 && tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                      : CUBLAS_COMPUTE_32F;
    check_lt(cublasLtMatmulDescInit(operation.get(), compute, p.in == DType::f64 ? CUDA_R_64F : CUDA_R_32F),
             "cublasLtMatmulDescInit");
    operation.put(CUBLASLT_MATMUL_DESC_TRANSA, p.b_layout.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    operation.put(CUBLASLT_MATMUL_DESC_TRANSB, p.a_layout.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (p.f8) put_scales(*p.f8);
    put_epilogue(p);
  }

 private:
  void put_scales(const Fp8Operands& f8) {
    operation.put(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, f8.b_inverse);
    operation.put(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, f8.a_inverse);
    operation.put(CUBLASLT_MATMUL_DESC_FAST_ACCUM, static_cast<int8_t>(f8.fast));
  }
  // What is read or written beside c goes by way of two pointers: a bias or sums, and the numbers before the GELU.
  void put_epilogue(const Matmul& p) {
    const cublasLtEpilogue_t epilogue = epilogue_of(p);
    if (epilogue == CUBLASLT_EPILOGUE_DEFAULT) return;
    operation.put(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    const void* const vector = p.sums != nullptr ? p.sums : p.bias;
    if (vector != nullptr) {
      operation.put(CUBLASLT_MATMUL_DESC_BIAS_POINTER, vector);
      operation.put(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(p.out));
    }
    if (p.aux == nullptr) return;
    operation.put(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, p.aux);
    operation.put(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p.n);
  }
  static cublasLtEpilogue_t epilogue_of(const Matmul& p) {
    switch (p.epilogue) {
      case Epilogue::gelu:
        return p.bias != nullptr ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
      case Epilogue::gelu_grad:
        return p.sums != nullptr ? CUBLASLT_EPILOGUE_DGELU_BGRAD : CUBLASLT_EPILOGUE_DGELU;
      case Epilogue::row_sums:
        return CUBLASLT_EPILOGUE_BGRADB;  // over k, for each row of ours, each column of the library's B
      case Epilogue::none:
        break;
    }
    return p.bias != nullptr ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  }
};

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

  // None: the library has no kernel for such a product.
  std::optional<cublasLtMatmulAlgo_t> algorithm(const Key& key, Call& call) {
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = algorithms_.find(key); found != algorithms_.end()) return found->second;
    }
    const auto chosen = choose(key, call);
    const std::lock_guard lock(mutex_);
    if (algorithms_.size() >= most_algorithms) algorithms_.clear();
    return algorithms_[key] = chosen;
  }

 private:
  static constexpr size_t most_algorithms = 8192;

  // The first of the library's proposals. Sums are split in ways that keep their order, and not in 16 bits.
  std::optional<cublasLtMatmulAlgo_t> choose(const Key& key, Call& call) {
    Preference preference;
    check_lt(cublasLtMatmulPreferenceInit(preference.get()), "cublasLtMatmulPreferenceInit");
    preference.put(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes(gpu_));
    preference.put(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    preference.put(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.alignments[1]);
    preference.put(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.alignments[0]);
    preference.put(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.alignments[2]);
    preference.put(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.alignments[2]);
    const DeviceScope scope(gpu_.index());
    cublasLtMatmulHeuristicResult_t result{};
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle_, call.operation.get(), call.a.get(), call.b.get(), call.c.get(),
                                       call.c.get(), preference.get(), 1, &result, &count);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) return std::nullopt;
    check_lt(status, "cublasLtMatmulAlgoGetHeuristic");
    if (count == 0 || result.state != CUBLAS_STATUS_SUCCESS) return std::nullopt;
    return result.algo;
  }

  Gpu& gpu_;
  cublasLtHandle_t handle_ = nullptr;
  std::mutex mutex_;
  std::map<cudaStream_t, void*> workspaces_;
  std::unordered_map<Key, std::optional<cublasLtMatmulAlgo_t>, KeyHash> algorithms_;
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

}  // namespace

std::string matmul_library() {
  const size_t version = cublasLtGetVersion();
  return str("cuBLASLt ", version / 10000, ".", version / 100 % 100, ".", version % 100);
}

bool matmul(Gpu& gpu, const Matmul& p) {
  const bool tf32 = allows_tf32();
  Library& lt = library(gpu);
  Call call(p, tf32);
  const auto algorithm = lt.algorithm(key_of(p, tf32), call);
  if (!algorithm && (p.bias != nullptr || p.epilogue != Epilogue::none || p.f8)) return false;
  check(algorithm.has_value(), "gemm: cuBLASLt has no algorithm for [", p.m, ", ", p.k, "] @ [", p.k, ", ", p.n,
        "] of ", p.in);
  const auto run = [&]<class T>(T alpha, T beta) {
    const DeviceScope scope(gpu.index());
    const cudaStream_t stream = gpu.stream();
    check_lt(cublasLtMatmul(lt.handle(), call.operation.get(), &alpha, p.b, call.a.get(), p.a, call.b.get(), &beta, p.c,
                            call.c.get(), p.c, call.c.get(), &*algorithm, lt.workspace(stream), workspace_bytes(gpu),
                            stream),
             "cublasLtMatmul");
  };
  if (p.in == DType::f64)
    run(p.alpha, p.beta);
  else
    run(static_cast<float>(p.alpha), static_cast<float>(p.beta));
  return true;
}

}  // namespace loom::cuda
