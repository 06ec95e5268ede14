// The fused kernels of one GPU; defined beside the plain ones of their families.
#pragma once

#include <loom/accelerators/cuda/device.h>
#include <loom/accelerators/fused.h>

namespace loom {

class CudaFused final : public FusedKernels {
 public:
  CudaFused(Accelerator& kernels, cuda::Gpu& gpu) : kernels_(kernels), gpu_(gpu) {}

  bool gemm_gelu(const View& y, const View& pre, const View& a, const View& b, const View& bias) override;
  bool gemm_gelu_grad(const View& d_pre, const View& sums, const View& a, const View& b, const View& pre) override;
  bool gemm_row_sums(const View& c, const View& sums, const View& a, const View& b, double beta) override;
  void add_layer_norm(const View& sum, const View& y, const View& mean, const View& rstd, const View& x,
                      const View& branch, const View& w, const View& b, double eps, bool rms) override;
  void add_layer_norm_grad(const View& dx, const View& dw, const View& db, const View& dy, const View& plus,
                           const View& x, const View& w, const View& mean, const View& rstd, bool rms) override;
  bool drops_in_attention(const View& y, const View& lse, const Attention& a, double keep) override;
  void attention_dropout(const View& y, const View& lse, const Attention& a, const AttentionDropout& d) override;
  void attention_dropout_grad(const View& dq, const View& dk, const View& dv, const View& dy, const View& y,
                              const View& lse, const Attention& a, const AttentionDropout& d) override;
  void grad_norm(const View& total, std::span<const UpdatePiece> pieces, const View& factor) override;
  void scale_grads(std::span<const UpdatePiece> pieces, const View& factor) override;
  void require_finite_norm(const View& norm) override;
  bool likes_channels_last(DType t) const override;
  std::string fp8_obstacle() const override;
  void fp8_quantize(const View& codes, const View& inverse, const View& x, const Fp8Scaling& scaling) override;
  void fp8_gemm(const Fp8Gemm& g) override;

 private:
  Accelerator& kernels_;
  cuda::Gpu& gpu_;
};

}  // namespace loom
