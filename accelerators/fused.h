// What a device does at once that takes others several calls of the Accelerator: Accelerator::fused(). The conventions
// are accelerator.h's. Functions that give bool: false where the device has no kernel for such operands (shapes,
// dtypes, or it is switched off); nothing has been done then, and the caller takes the plain way.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include <loom/accelerators/accelerator.h>

namespace loom {

// Floating numbers of 8 bits: 4 of exponent and 3 of mantissa, up to 448, no infinity; 5 and 2, up to 57344.
enum class Fp8 : uint8_t { e4m3, e5m2 };

// How a tensor of f8 is scaled: by what its largest magnitudes have been ("delayed scaling").
struct Fp8Scaling {
  // f32 [3 + length]: the factor of the next use, that of the last one, the place in the history where the next
  // magnitude goes, and the history.
  View state;
  Fp8 format = Fp8::e4m3;
  double margin = 0;   // the factor is the format's largest number / the history's largest / 2^margin
  bool first = false;  // nothing has been noted: x is measured before it is scaled
  bool again = false;  // the last use once more (a recomputed forward): with its factor, and nothing is noted
};

// c [M, N] = a [M, K] @ b [N, K]^T + beta * c + bias, a and b dense codes (u8), numbers being code * inverse.
struct Fp8Gemm {
  View c, a, b, bias;         // c: bf16 or f32, dense; bias [N]: bf16 as c is then, or null data
  View a_inverse, b_inverse;  // one f32 each
  Fp8 a_format = Fp8::e4m3, b_format = Fp8::e4m3;
  double beta = 0;
  bool fast = false;  // sums may be kept with fewer digits
};

// What becomes of the weights of attention: each is kept with probability `keep`, and 1 / keep as large then.
struct AttentionDropout {
  double keep = 1;
  View words;  // i64 [4], not negative: which weights are kept follows, in the device's own way, from the first and
               // third
};

// A device that has these also lets cross_entropy_grad write over its logits.
class FusedKernels {
 public:
  virtual ~FusedKernels() = default;

  // pre [M, N] = a [M, K] @ b [K, N] + bias [N], y = gelu_tanh(pre); y and pre dense, all of one dtype.
  virtual bool gemm_gelu(const View& y, const View& pre, const View& a, const View& b, const View& bias) = 0;
  // d_pre [M, N] = (a [M, K] @ b [K, N]) * gelu_tanh'(pre [M, N]); sums [N] (or null data): of its columns.
  virtual bool gemm_gelu_grad(const View& d_pre, const View& sums, const View& a, const View& b, const View& pre) = 0;
  // c [M, N] = a [M, K] @ b [K, N] + beta * c; sums [M]: of a's rows, of c's dtype.
  virtual bool gemm_row_sums(const View& c, const View& sums, const View& a, const View& b, double beta) = 0;

  // sum = x + branch, and layer_norm of it. x, sum, y dense [R, C] of one dtype, branch of that or of 16 bits.
  virtual void add_layer_norm(const View& sum, const View& y, const View& mean, const View& rstd, const View& x,
                              const View& branch, const View& w, const View& b, double eps, bool rms) = 0;
  // layer_norm_grad with dx = plus + what it gives; plus dense, of x's dtype.
  virtual void add_layer_norm_grad(const View& dx, const View& dw, const View& db, const View& dy, const View& plus,
                                   const View& x, const View& w, const View& mean, const View& rstd, bool rms) = 0;

  // Whether attention and its gradient can drop weights for such operands; lse as Accelerator::attention has it.
  virtual bool drops_in_attention(const View& y, const View& lse, const Attention& a, double keep) = 0;
  // Where that is so: attention, and its gradient for the same words, lse and y.
  virtual void attention_dropout(const View& y, const View& lse, const Attention& a, const AttentionDropout& d) = 0;
  virtual void attention_dropout_grad(const View& dq, const View& dk, const View& dv, const View& dy, const View& y,
                                      const View& lse, const Attention& a, const AttentionDropout& d) = 0;

  // total (one f64) = sqrt(sum of squares of all gradients); those of 16 bits are multiplied with `factor` (one f32, or
  // null data).
  virtual void grad_norm(const View& total, std::span<const UpdatePiece> pieces, const View& factor) = 0;
  // Gradients times `factor`, one f64.
  virtual void scale_grads(std::span<const UpdatePiece> pieces, const View& factor) = 0;
  // What is wrong if `norm` (one f64) is not finite is told the host when it next waits for the device.
  virtual void require_finite_norm(const View& norm) = 0;

  // Whether images of this dtype are best kept with their channels last in memory.
  virtual bool likes_channels_last(DType t) const = 0;

  // What products of 8 bits lack on this device, for a message; empty: nothing.
  virtual std::string fp8_obstacle() const = 0;
  // codes (u8, dense, x's shape) = the rounding of x * factor, clamped to the format's range; inverse (one f32) =
  // 1 / factor. Notes x's largest magnitude, if finite, in the scaling. x: floating.
  virtual void fp8_quantize(const View& codes, const View& inverse, const View& x, const Fp8Scaling& scaling) = 0;
  // M, N and K multiples of 16.
  virtual void fp8_gemm(const Fp8Gemm& g) = 0;
};

}  // namespace loom
