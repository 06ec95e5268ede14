// Products with what follows them, and those of 8 bits.
#include <loom/accelerators/cuda/fused.h>
#include <loom/accelerators/cuda/matmul.h>
#include <loom/accelerators/cuda/precision.h>

namespace loom {

namespace {

using cuda::Epilogue;
using cuda::Matmul;

// The product c = a @ b where the library's layouts can say it; c dense.
std::optional<Matmul> product(const View& c, const View& a, const View& b) {
  const auto a_layout = cuda::layout_of(a), b_layout = cuda::layout_of(b);
  if (!c.is_contiguous() || c.numel() == 0 || a.shape[1] == 0 || !a_layout || !b_layout) return {};
  Matmul p{.in = a.dtype, .out = c.dtype, .m = c.shape[0], .n = c.shape[1], .k = a.shape[1]};
  p.a_layout = *a_layout;
  p.b_layout = *b_layout;
  p.c_layout = {.transposed = false, .leading = p.n};
  p.a = a.data;
  p.b = b.data;
  p.c = c.data;
  return p;
}

bool is_dense_vector(const View& x) { return x.data == nullptr || x.numel() < 2 || x.strides[0] == 1; }

// Rows of what stands beside a GELU are multiples of 8 elements, on 16-byte boundaries.
bool lies_for_gelu(const View& pre) {
  return pre.is_contiguous() && pre.shape[1] % 8 == 0 && reinterpret_cast<uintptr_t>(pre.data) % 16 == 0;
}

}  // namespace

bool CudaFused::gemm_gelu(const View& y, const View& pre, const View& a, const View& b, const View& bias) {
  auto p = product(y, a, b);
  if (!cuda::uses_epilogues(gpu_) || !p || !lies_for_gelu(pre) || !is_dense_vector(bias)) return false;
  p->epilogue = Epilogue::gelu;
  p->aux = pre.data;
  p->bias = bias.data;
  return cuda::matmul(gpu_, *p);
}

bool CudaFused::gemm_gelu_grad(const View& d_pre, const View& sums, const View& a, const View& b, const View& pre) {
  auto p = product(d_pre, a, b);
  if (!cuda::uses_epilogues(gpu_) || !p || !lies_for_gelu(pre) || !is_dense_vector(sums)) return false;
  p->epilogue = Epilogue::gelu_grad;
  p->aux = pre.data;
  p->sums = sums.data;
  return cuda::matmul(gpu_, *p);
}

bool CudaFused::gemm_row_sums(const View& c, const View& sums, const View& a, const View& b, double beta) {
  auto p = product(c, a, b);
  if (!cuda::uses_epilogues(gpu_) || !p || !is_dense_vector(sums)) return false;
  p->epilogue = Epilogue::row_sums;
  p->sums = sums.data;
  p->beta = beta;
  return cuda::matmul(gpu_, *p);
}

std::string CudaFused::fp8_obstacle() const {
  const cudaDeviceProp& p = gpu_.properties();
  if (p.major * 10 + p.minor >= 89) return {};
  return str("a GPU of compute capability 8.9 or later (Ada, Hopper), and cuda:", gpu_.index(), " (", p.name, ") has ",
             p.major, '.', p.minor);
}

void CudaFused::fp8_gemm(const Fp8Gemm& g) {
  Matmul p{.in = DType::bf16, .out = g.c.dtype, .m = g.c.shape[0], .n = g.c.shape[1], .k = g.a.shape[1]};
  p.a_layout = {.transposed = false, .leading = p.k};
  p.b_layout = {.transposed = true, .leading = p.k};
  p.c_layout = {.transposed = false, .leading = p.n};
  p.a = g.a.data;
  p.b = g.b.data;
  p.c = g.c.data;
  p.bias = g.bias.data;
  p.beta = g.beta;
  p.f8 = {g.a_format, g.b_format, g.a_inverse.as<const float>(), g.b_inverse.as<const float>(), g.fast};
  if (cuda::matmul(gpu_, p)) return;
  p.bias = nullptr;
  check(g.beta == 0 || g.bias.data == nullptr, "fp8_gemm: a bias together with beta");
  check(cuda::matmul(gpu_, p), "fp8_gemm: cuBLASLt has no algorithm for [", p.m, ", ", p.k, "] @ [", p.k, ", ", p.n,
        "] of 8 bits");
  if (g.bias.data == nullptr) return;
  View bias = g.bias;
  bias.shape = g.c.shape;
  bias.strides = {0, 1};
  kernels_.binary(Binary::add, g.c, g.c, bias);
}

bool CudaFused::likes_channels_last(DType t) const { return is_half(t); }

}  // namespace loom
