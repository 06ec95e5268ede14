// Softmax, norms, dropout, attention and losses.
#pragma once

#include <optional>
#include <string_view>

#include <loom/tensor/tensor.h>

namespace loom {

Tensor softmax(const Tensor& x, int dim);
Tensor log_softmax(const Tensor& x, int dim);
Tensor softmin(const Tensor& x, int dim);

// (x - mean) / sqrt(var + eps) * weight + bias over the last dims, whose extents are `shape` (Ba, Kiros, Hinton 2016);
// weight and bias have that shape or are undefined.
Tensor layer_norm(const Tensor& x, const Dims& shape, const Tensor& weight = {}, const Tensor& bias = {},
                  double eps = 1e-5);
// x / sqrt(mean(x^2) + eps) * weight (Zhang, Sennrich 2019). eps none: the smallest step of x's dtype, as PyTorch.
Tensor rms_norm(const Tensor& x, const Dims& shape, const Tensor& weight = {}, std::optional<double> eps = {});
// x [N, C, ..], groups of channels (Wu, He 2018); weight, bias [C] or undefined.
Tensor group_norm(const Tensor& x, int64_t groups, const Tensor& weight = {}, const Tensor& bias = {},
                  double eps = 1e-5);
// x [N, C, ..] (Ioffe, Szegedy 2015). training: the batch's statistics; the running ones (if defined) move towards
// them: running = (1 - momentum) * running + momentum * batch, with the unbiased variance.
Tensor batch_norm(const Tensor& x, const Tensor& running_mean, const Tensor& running_var, const Tensor& weight = {},
                  const Tensor& bias = {}, bool training = false, double momentum = 0.1, double eps = 1e-5);

// Zeroes elements with probability p and scales the rest by 1 / (1 - p); the identity unless training. The mask depends
// on the seed, the data rank and the draw, so replicas drop different elements. An element takes 16 random bits
// (flash-attention's dropout: 8), so p is rounded to a multiple of 2^-16, in the scale too, but to 0 or 1 only where it
// is that.
Tensor dropout(const Tensor& x, double p = 0.5, bool training = true);

struct AttentionOptions {
  Tensor mask{};           // boolean (true: attend) or added to the scores; broadcasts to [.., Tq, Tk]; undefined: none
  double dropout = 0;      // on the attention weights
  bool is_causal = false;  // position i attends to j <= i; not together with a mask
  std::optional<double> scale{};  // default 1 / sqrt(d)
  bool enable_gqa = false;        // k and v may have fewer heads (dimension -3): n of q's in a row share one of theirs
};
// softmax(q k^T * scale + mask) v; q [.., Tq, d], k [.., Tk, d], v [.., Tk, dv] (Vaswani et al. 2017; heads that share
// keys: Ainslie et al. 2023). Which weights are dropped depends on the seed, the data rank and the draw, and is the
// same on every device but for f16 and bf16 where cuDNN computes it: from the same seed it draws others than the CPU,
// and a gradient of the gradient is refused. Gradients know a row's softmax by its logarithm alone, as in PyTorch's
// fused kernels: of a row that a mask lowers as a whole by m they are off by a part of m * 6e-8 (f64: 1e-16), and
// meaningless for a row of -1e9 alone; a row that a boolean mask hides has none. On a CPU the result lies in memory as
// q does: [.., Tq, heads, dv] where q is a transposed projection, so that transpose(y, -3, -2).flatten(-2) copies
// nothing and y.view across heads is refused, as in PyTorch.
Tensor scaled_dot_product_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                                    const AttentionOptions& options = {});

enum class Reduction : uint8_t { mean, sum, none };

struct CrossEntropyOptions {
  Tensor weight{};  // [C], per class; undefined: 1
  int64_t ignore_index = -100;
  Reduction reduction = Reduction::mean;
  double label_smoothing = 0;
};
// logits [N, C], [C] or [N, C, d1, ..]; target: class indices (i64) [N], [] or [N, d1, ..], or probabilities of the
// logits' shape. Mean over weights of the classes that count, as torch.nn.functional.cross_entropy.
Tensor cross_entropy(const Tensor& logits, const Tensor& target, const CrossEntropyOptions& options = {});
struct NllOptions {
  Tensor weight{};
  int64_t ignore_index = -100;
  Reduction reduction = Reduction::mean;
};
Tensor nll_loss(const Tensor& log_probabilities, const Tensor& target, const NllOptions& options = {});
Tensor mse_loss(const Tensor& x, const Tensor& target, Reduction reduction = Reduction::mean);
Tensor l1_loss(const Tensor& x, const Tensor& target, Reduction reduction = Reduction::mean);
Tensor smooth_l1_loss(const Tensor& x, const Tensor& target, Reduction reduction = Reduction::mean, double beta = 1);
Tensor huber_loss(const Tensor& x, const Tensor& target, Reduction reduction = Reduction::mean, double delta = 1);
// x: probabilities in [0, 1]; logarithms are clamped at -100, as PyTorch.
Tensor binary_cross_entropy(const Tensor& x, const Tensor& target, const Tensor& weight = {},
                            Reduction reduction = Reduction::mean);
Tensor binary_cross_entropy_with_logits(const Tensor& x, const Tensor& target, const Tensor& weight = {},
                                        Reduction reduction = Reduction::mean, const Tensor& pos_weight = {});
// target * (log target - x), x: log-probabilities. mean divides by all elements (PyTorch's default); batchmean by N.
enum class KlReduction : uint8_t { mean, batchmean, sum, none };
Tensor kl_div(const Tensor& x, const Tensor& target, KlReduction reduction = KlReduction::mean,
              bool log_target = false);

}  // namespace loom
