// What layer norm and its gradient share: how weights lie along rows, and rows kept in registers.
#pragma once

#include <loom/accelerators/cuda/layout.h>
#include <loom/accelerators/cuda/row_values.h>
#include <loom/accelerators/cuda/rows.h>

#if defined(__CUDACC__)
namespace loom::cuda {

// Rows of n elements; element e of all takes weight e / spread % count. Several rows share the weights, or each has
// all.
struct RowWeights {
  int64_t count, spread, in_row;  // in_row: weights that a row takes
  Divider by_spread, by_row, by_period;
  uint32_t period;  // rows after which weights come again
  RowWeights(int64_t n, int64_t weights, int64_t repeats)
      : count(weights),
        spread(repeats),
        in_row(n / repeats),
        by_spread(static_cast<uint32_t>(repeats)),
        by_row(static_cast<uint32_t>(in_row)),
        period(static_cast<uint32_t>(std::max<int64_t>(weights / in_row, 1))) {
    by_period = Divider(period);
  }
  // Rows of group norm, and stretches of equal weights, are fewer than 2^31.
  bool fit(int64_t rows) const { return spread == 1 || rows * in_row <= std::numeric_limits<int32_t>::max(); }

  // The first weight of a row, how many weights on element i of it has come, and the row of a stretch.
  __device__ int64_t first(int64_t row) const {
    const auto r = static_cast<uint32_t>(row);
    return spread == 1 ? 0 : (r - by_period.quotient(r) * period) * in_row;
  }
  __device__ int64_t on(int64_t i) const { return spread == 1 ? i : by_spread.quotient(static_cast<uint32_t>(i)); }
  __device__ int64_t row_of(int64_t stretch) const { return by_row.quotient(static_cast<uint32_t>(stretch)); }
};
inline void check_rows(const char* name, int64_t rows, int64_t n, const RowWeights& weights) {
  check(n <= std::numeric_limits<int32_t>::max() && weights.fit(rows), name, ": ", rows, " rows of ", n,
        " elements are not implemented on cuda");
}

// A row in registers: `steps` packs of S for each thread of a team.
template <class S, int team, int steps>
struct RowPacks {
  static constexpr int width = Pack<S>::width;
  Run<S, width> runs[steps] = {};

  static __device__ __forceinline__ int64_t position(int k) {
    return (static_cast<int64_t>(threadIdx.x % team) + k * team) * width;
  }
  __device__ __forceinline__ void read(const S* row, int64_t n) {
#pragma unroll
    for (int k = 0; k < steps; ++k)
      if (position(k) < n) runs[k] = read_run<width>(row + position(k));
  }
  // f(k, position) for the packs that are there.
  template <class F>
  static __device__ __forceinline__ void for_each(int64_t n, const F& f) {
#pragma unroll
    for (int k = 0; k < steps; ++k)
      if (position(k) < n) f(k, position(k));
  }
};

// Calls f.operator()<team, steps>() with a team whose registers hold a row of n elements of S, if there is one.
template <class S, class F>
bool with_row_team(int64_t n, bool aligned, const F& f) {
  constexpr int width = Pack<S>::width;
  if (!aligned || n % width != 0) return false;
  const int64_t packs = n / width;
  if (packs <= 32)
    f.template operator()<32, 1>();
  else if (packs <= 64)
    f.template operator()<32, 2>();
  else if (packs <= 96)
    f.template operator()<32, 3>();
  else if (packs <= 128)
    f.template operator()<32, 4>();
  else if (packs <= 256)
    f.template operator()<threads_per_block, 1>();
  else if (packs <= 512)
    f.template operator()<threads_per_block, 2>();
  else if (packs <= 1024)
    f.template operator()<threads_per_block, 4>();
  else
    return false;
  return true;
}

// f.operator()<W>() with the dtype in which weights are read: the rows' own, or that of the arithmetic.
template <class S, class F>
void with_weight_type(const View& w, const View& b, const F& f) {
  const auto is = [](const View& v, DType t) { return v.data == nullptr || v.dtype == t; };
  if (is(w, dtype_of<S>()) && is(b, dtype_of<S>()))
    f.template operator()<S>();
  else
    f.template operator()<compute_type<S>>();
}

}  // namespace loom::cuda
#endif
