// The kernels of attention between its matrix products: rows of scores become weights, and gradients of weights those
// of scores. T is what is summed in (f32 or f64), weights are of T or of 16 bits.
#pragma once

#include <array>
#include <cstdint>

#include <loom/accelerators/cuda/device.h>
#include <loom/accelerators/view.h>

namespace loom::cuda {

// Which scores count, or what is added to them: [.., T, S] of booleans or of T.
struct ScoreMask {
  const void* data = nullptr;  // null: none
  bool boolean = false;
  int rank = 0;  // of the leading dimensions
  std::array<int64_t, Dims::max_rank> extents{}, strides{};
  int64_t down = 0, right = 0;

  ScoreMask() = default;
  explicit ScoreMask(const View& mask);
  LOOM_HOST_DEVICE bool adds() const { return data != nullptr && !boolean; }
};

// Scores [matrices, rows, keys], dense: of the rows from `query` on and the first keys of the matrices from `first` on.
struct ScoreBlock {
  int64_t first, matrices, query, rows, keys;
  int64_t queries;  // rows of a whole matrix, as lse has them
  bool causal;
  ScoreMask mask;
};

// weights (T's or 16 bits; may be scores itself) = softmax(scores), lse [.., queries] their logsumexp. Rows with
// nothing to attend to: 0 and +infinity, or NaN where a mask is added.
void softmax_scores(Gpu& gpu, void* weights, DType weights_type, const View& lse, const void* scores,
                    const ScoreBlock& block);
// weights = exp(scores - lse) again, dscores = weights * (dweights - along); they may be scores and dweights
// themselves.
void softmax_scores_grad(Gpu& gpu, void* weights, void* dscores, DType weights_type, const void* scores,
                         const void* dweights, const View& lse, const void* along, const ScoreBlock& block);
// out [L * T] = sum(a * b) of rows of a, b [L, T, V].
void row_products(Gpu& gpu, void* out, const View& a, const View& b);

}  // namespace loom::cuda
