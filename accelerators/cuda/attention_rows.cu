#include <cmath>
#include <limits>

#include <loom/accelerators/cuda/attention_rows.h>
#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/cuda/launch.h>

namespace loom::cuda {

namespace {

constexpr int warp = 32, warps = threads_per_block / warp;
constexpr int64_t widest_of_warp = 1024;  // longer rows get a block each

// Rows and matrices of a block of scores, which fits a part of the memory, are counted in 32 bits.
__device__ int64_t mask_offset(const ScoreMask& mask, uint32_t matrix, int64_t row) {
  int64_t at = row * mask.down;
  for (int d = mask.rank - 1; d >= 0; --d) {
    const auto extent = static_cast<uint32_t>(mask.extents[d]);
    const uint32_t rest = matrix / extent;
    at += int64_t{matrix - rest * extent} * mask.strides[d];
    matrix = rest;
  }
  return at;
}

// One row of scores as it counts.
template <class T>
struct MaskedRow {
  const T* scores;
  const ScoreMask& mask;
  int64_t index;          // of the row among all queries
  int64_t mask_at, last;  // keys after `last` are hidden

  __device__ MaskedRow(const T* all, const ScoreBlock& block, int64_t r)
      : scores(all + r * block.keys), mask(block.mask), mask_at(0), last(block.keys) {
    const auto count = static_cast<uint32_t>(block.rows), at = static_cast<uint32_t>(r);
    const uint32_t part = at / count, matrix = static_cast<uint32_t>(block.first) + part;
    const int64_t row = block.query + (at - part * count);
    index = matrix * block.queries + row;
    if (block.causal) last = row;
    if (mask.data != nullptr) mask_at = mask_offset(mask, matrix, row);
  }
  __device__ T operator[](int64_t j) const {
    const T hidden = -std::numeric_limits<T>::infinity();
    T x = j > last ? hidden : scores[j];
    if (mask.data == nullptr) return x;
    if (!mask.boolean) return x + static_cast<const T*>(mask.data)[mask_at + j * mask.right];
    return static_cast<const bool*>(mask.data)[mask_at + j * mask.right] ? x : hidden;
  }
};

// The sum of exp(x - top) over x seen so far.
template <class T>
struct RunningSum {
  T top = -std::numeric_limits<T>::infinity(), sum = T(0);

  __device__ void take(T x) {
    if (x == -std::numeric_limits<T>::infinity()) return;
    if (x > top) {
      sum = sum * std::exp(top - x) + T(1);
      top = x;
    } else {
      sum += std::exp(x - top);
    }
  }
  __device__ void join(const RunningSum& other) {
    const T highest = other.top > top ? other.top : top;
    const T own = top == highest ? T(1) : std::exp(top - highest);
    const T others = other.top == highest ? T(1) : std::exp(other.top - highest);
    sum = sum * own + other.sum * others;
    top = highest;
  }
  __device__ void join_warp() {
    for (int step = warp / 2; step > 0; step /= 2) {
      RunningSum other;
      other.top = __shfl_xor_sync(0xffffffffu, top, step);
      other.sum = __shfl_xor_sync(0xffffffffu, sum, step);
      // The lower lane comes first on both sides, which then have the same bits.
      RunningSum first = threadIdx.x & step ? other : *this;
      first.join(threadIdx.x & step ? *this : other);
      *this = first;
    }
  }
  // All threads of the block make this call; all have the result.
  __device__ void join_block() {
    __shared__ T tops[warps], sums[warps];
    join_warp();
    if (threadIdx.x % warp == 0) {
      tops[threadIdx.x / warp] = top;
      sums[threadIdx.x / warp] = sum;
    }
    __syncthreads();
    *this = RunningSum();
    for (int i = 0; i < warps; ++i) {
      RunningSum other;
      other.top = tops[i];
      other.sum = sums[i];
      join(other);
    }
    __syncthreads();
  }
};

// Calls f(row, lane, lanes) for the rows of this thread's warp, or of its block.
template <bool block_a_row, class F>
__device__ __forceinline__ void for_each_row(int64_t rows, const F& f) {
  constexpr int lanes = block_a_row ? threads_per_block : warp;
  constexpr int at_once = threads_per_block / lanes;
  const int64_t step = int64_t{gridDim.x} * at_once;
  for (int64_t r = int64_t{blockIdx.x} * at_once + threadIdx.x / lanes; r < rows; r += step)
    f(r, static_cast<int>(threadIdx.x) % lanes, lanes);
}

template <class T, class W, bool block_a_row>
__global__ void __launch_bounds__(threads_per_block)
    softmax_kernel(W* weights, T* lse, const T* scores, ScoreBlock block) {
  for_each_row<block_a_row>(block.matrices * block.rows, [&](int64_t r, int lane, int lanes) {
    const MaskedRow<T> row(scores, block, r);
    RunningSum<T> all;
    for (int64_t j = lane; j < block.keys; j += lanes) all.take(row[j]);
    if constexpr (block_a_row)
      all.join_block();
    else
      all.join_warp();
    const T infinity = std::numeric_limits<T>::infinity();
    const bool blank = all.sum == T(0) && !block.mask.adds();
    const T scale = blank ? T(0) : T(1) / all.sum, around = all.top == -infinity ? T(0) : all.top;
    if (lane == 0) lse[row.index] = blank ? infinity : all.top + std::log(all.sum);
    for (int64_t j = lane; j < block.keys; j += lanes)
      weights[r * block.keys + j] = convert<W>(std::exp(row[j] - around) * scale);
  });
}

template <class T, class W, bool block_a_row>
__global__ void __launch_bounds__(threads_per_block)
    softmax_grad_kernel(W* weights, W* dscores, const T* scores, const T* dweights, const T* lse, const T* along,
                        ScoreBlock block) {
  for_each_row<block_a_row>(block.matrices * block.rows, [&](int64_t r, int lane, int lanes) {
    const MaskedRow<T> row(scores, block, r);
    const T shift = lse[row.index], rest = along[row.index];
#pragma unroll(sizeof(T) == 8 ? 1 : 4)
    for (int64_t j = lane; j < block.keys; j += lanes) {
      const int64_t at = r * block.keys + j;
      const T w = std::exp(row[j] - shift), d = w * (dweights[at] - rest);
      weights[at] = convert<W>(w);
      dscores[at] = convert<W>(d);
    }
  });
}

template <class T>
struct RowsOf {
  const T* data;
  int64_t matrix, row, column;  // strides
};

template <class T, class C>
__global__ void __launch_bounds__(threads_per_block)
    row_products_kernel(C* out, RowsOf<T> a, RowsOf<T> b, int64_t matrices, int64_t rows, int64_t columns) {
  for_each_row<false>(matrices * rows, [&](int64_t r, int lane, int lanes) {
    const T* const x = a.data + r / rows * a.matrix + r % rows * a.row;
    const T* const y = b.data + r / rows * b.matrix + r % rows * b.row;
    C sum = C(0);
    for (int64_t j = lane; j < columns; j += lanes)
      sum += static_cast<C>(x[j * a.column]) * static_cast<C>(y[j * b.column]);
    for (int step = warp / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (lane == 0) out[r] = sum;
  });
}

// Blocks for rows of which a block does one, or one a warp.
int blocks_for(const Gpu& gpu, int64_t rows, bool block_a_row) {
  return grid_for(gpu, block_a_row ? rows * threads_per_block : rows * warp);
}

// Calls f.operator()<T, W, block_a_row>().
template <class F>
void with_types(DType sum, DType weights, int64_t keys, const F& f) {
  const auto with_rows = [&]<class T, class W> {
    if (keys > widest_of_warp)
      f.template operator()<T, W, true>();
    else
      f.template operator()<T, W, false>();
  };
  if (sum == DType::f64) return with_rows.template operator()<double, double>();
  if (weights == DType::f16) return with_rows.template operator()<float, Half>();
  if (weights == DType::bf16) return with_rows.template operator()<float, BFloat16>();
  with_rows.template operator()<float, float>();
}

}  // namespace

ScoreMask::ScoreMask(const View& mask) : data(mask.data), boolean(mask.dtype == DType::boolean) {
  if (data == nullptr) return;
  rank = mask.rank() - 2;
  for (int d = 0; d < rank; ++d) {
    extents[static_cast<size_t>(d)] = mask.shape[d];
    strides[static_cast<size_t>(d)] = mask.strides[d];
  }
  down = mask.strides[rank];
  right = mask.strides[rank + 1];
}

void softmax_scores(Gpu& gpu, void* weights, DType weights_type, const View& lse, const void* scores,
                    const ScoreBlock& block) {
  with_types(lse.dtype, weights_type, block.keys, [&]<class T, class W, bool block_a_row> {
    launch(gpu, "attention", &softmax_kernel<T, W, block_a_row>,
           blocks_for(gpu, block.matrices * block.rows, block_a_row), threads_per_block, 0, static_cast<W*>(weights),
           lse.as<T>(), static_cast<const T*>(scores), block);
  });
}

void softmax_scores_grad(Gpu& gpu, void* weights, void* dscores, DType weights_type, const void* scores,
                         const void* dweights, const View& lse, const void* along, const ScoreBlock& block) {
  with_types(lse.dtype, weights_type, block.keys, [&]<class T, class W, bool block_a_row> {
    launch(gpu, "attention_grad", &softmax_grad_kernel<T, W, block_a_row>,
           blocks_for(gpu, block.matrices * block.rows, block_a_row), threads_per_block, 0, static_cast<W*>(weights),
           static_cast<W*>(dscores), static_cast<const T*>(scores), static_cast<const T*>(dweights), lse.as<const T>(),
           static_cast<const T*>(along), block);
  });
}

void row_products(Gpu& gpu, void* out, const View& a, const View& b) {
  with_floating("attention_grad", a.dtype, [&]<class T> {
    using C = compute_type<T>;
    const auto rows_of = [](const View& x) {
      return RowsOf<T>{x.as<const T>(), x.strides[0], x.strides[1], x.strides[2]};
    };
    launch(gpu, "attention_grad", &row_products_kernel<T, C>, blocks_for(gpu, a.shape[0] * a.shape[1], false),
           threads_per_block, 0, static_cast<C*>(out), rows_of(a), rows_of(b), a.shape[0], a.shape[1], a.shape[2]);
  });
}

}  // namespace loom::cuda
