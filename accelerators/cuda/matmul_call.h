// Products as cuBLASLt is told of them: descriptors, and a key that tells them apart. For matmul.cpp alone.
#pragma once

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include <loom/accelerators/cuda/matmul.h>
#include <loom/accelerators/cuda/runtime.h>

namespace loom::cuda {

inline void check_lt(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) [[unlikely]]
    fail(what, ": ", cublasLtGetStatusName(status), ": ", cublasLtGetStatusString(status));
}

inline cudaDataType_t type_of(Fp8 t) { return t == Fp8::e4m3 ? CUDA_R_8F_E4M3 : CUDA_R_8F_E5M2; }
inline cudaDataType_t type_of(DType t) {
  return t == DType::f64 ? CUDA_R_64F : t == DType::f32 ? CUDA_R_32F : t == DType::f16 ? CUDA_R_16F : CUDA_R_16BF;
}

// The bytes that an address is a multiple of, as far as kernels ask.
inline uint32_t alignment_of(const void* address) {
  const auto bits = reinterpret_cast<uintptr_t>(address);
  return std::min<uint32_t>(256, bits == 0 ? 256 : uint32_t{1} << std::min(std::countr_zero(bits), 8));
}

// All that the choice of an algorithm depends on. Numbers alone, so that they can be compared as such.
struct MatmulKey {
  std::array<int64_t, 7> extents;  // m, n, k, batches, leading dimensions
  std::array<int64_t, 3> steps;
  std::array<uint32_t, 3> alignments;
  uint32_t flags;  // dtypes, transpositions, bias, beta, tf32, epilogue, operands of 8 bits
  bool operator==(const MatmulKey&) const = default;
};
struct MatmulKeyHash {
  size_t operator()(const MatmulKey& key) const {
    uint64_t hash = 0xcbf29ce484222325;
    const auto take = [&](uint64_t value) { hash = (hash ^ value) * 0x9e3779b97f4a7c15, hash ^= hash >> 29; };
    for (const int64_t v : key.extents) take(static_cast<uint64_t>(v));
    for (const int64_t v : key.steps) take(static_cast<uint64_t>(v));
    for (const uint32_t v : key.alignments) take(v);
    take(key.flags);
    return hash;
  }
};

inline MatmulKey key_of(const Matmul& p, bool tf32) {
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
struct MatmulDescribed {
  Opaque opaque{};
  Opaque* get() { return &opaque; }
  template <class A, class T>
  void put(A attribute, const T& value) {
    check_lt(set(get(), attribute, &value, sizeof value), "gemm: cuBLASLt's descriptor");
  }
};
using MatmulOperation = MatmulDescribed<cublasLtMatmulDescOpaque_t, cublasLtMatmulDescSetAttribute>;
using MatmulPreference = MatmulDescribed<cublasLtMatmulPreferenceOpaque_t, cublasLtMatmulPreferenceSetAttribute>;
using MatmulLayout = MatmulDescribed<cublasLtMatrixLayoutOpaque_t, cublasLtMatrixLayoutSetAttribute>;

// A row-major [rows, columns] is a column-major [columns, rows]; transposed, it is itself column-major.
inline MatmulLayout layout_of(cudaDataType_t t, int64_t rows, int64_t columns, const MatrixLayout& m, int64_t batches) {
  if (!m.transposed) std::swap(rows, columns);
  MatmulLayout out;
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
struct MatmulCall {
  MatmulOperation operation;
  MatmulLayout a, b, c;

  MatmulCall(const Matmul& p, bool tf32)
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

}  // namespace loom::cuda
