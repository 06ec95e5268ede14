// Entries sorted by the place that they go to: the last one of each is written, or all of them are summed, in pieces of
// equal length and then the sums of the pieces. Kernels go along columns in x and along entries in y.
#pragma once

#include <algorithm>
#include <bit>

#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/cuda/index.h>

#if defined(__CUDACC__)
namespace loom::cuda {

// What is sorted: n entries by where in the table they go (`key * key_step` bytes from its `base`), with where in the
// list they come from (bytes). Keys from `end` on go nowhere.
struct Entries {
  int64_t* keys;
  int64_t* from;
  int64_t n, end, key_step;
  char* base;
};

// The last entry of each place is written. The walk is over the columns of the table and the list.
template <class T>
__global__ void __launch_bounds__(threads_per_block) write_kernel(Entries e, Walk<2> columns) {
  const uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= columns.numel) return;
  const auto at = columns.offsets(c);
  for (int64_t s = int64_t{blockIdx.y} * blockDim.y + threadIdx.y; s < e.n; s += int64_t{gridDim.y} * blockDim.y) {
    const int64_t key = e.keys[s];
    if (key >= e.end || (s + 1 < e.n && e.keys[s + 1] == key)) continue;
    *reinterpret_cast<T*>(e.base + key * e.key_step + at[0]) =
        *reinterpret_cast<const T*>(columns.data[1] + e.from[s] + at[1]);
  }
}

// Sums of the pieces' first and last places, where these go on in a neighbour: [2 * piece + (0 or 1)][column].
template <class A>
struct Partial {
  A* sums;
  int64_t piece;  // entries
  int64_t columns, first_column;
  __device__ A& at(int64_t i, int last, uint32_t column) const {
    return sums[(2 * i + last) * columns + first_column + column];
  }
};

template <class T, class A>
__device__ __forceinline__ void add_to(const Entries& e, int64_t key, int64_t column, A sum) {
  T& y = *reinterpret_cast<T*>(e.base + key * e.key_step + column);
  y = convert<T>(static_cast<A>(static_cast<A>(y) + sum));
}

// One column of entries [begin, end): several elements are asked for before the first is needed.
template <class T, class A>
__device__ __forceinline__ void sum_piece(const Entries& e, const Partial<A>& partial, int64_t i, uint32_t c,
                                          const char* list, int64_t to) {
  constexpr int ahead = 8;
  const int64_t begin = i * partial.piece, end = begin + partial.piece < e.n ? begin + partial.piece : e.n;
  const int64_t before = begin > 0 ? e.keys[begin - 1] : -1, after = end < e.n ? e.keys[end] : -1;
  int64_t key = e.keys[begin];
  A sum = 0;
  const auto finish = [&](bool last) {
    if (key >= e.end) return;
    if (key == before)
      partial.at(i, 0, c) = sum;
    else if (last && key == after)
      partial.at(i, 1, c) = sum;
    else
      add_to<T>(e, key, to, sum);
  };
  for (int64_t s = begin; s < end; s += ahead) {
    int64_t keys[ahead];
    T values[ahead];
#pragma unroll
    for (int k = 0; k < ahead; ++k) {
      const int64_t at = s + k < end ? s + k : end - 1;
      keys[k] = e.keys[at];
      values[k] = *reinterpret_cast<const T*>(list + e.from[at]);
    }
#pragma unroll
    for (int k = 0; k < ahead; ++k) {
      if (s + k >= end) break;
      if (keys[k] != key) {
        finish(false);
        key = keys[k];
        sum = 0;
      }
      sum += static_cast<A>(values[k]);
    }
  }
  finish(true);
}

template <class T, class A>
__global__ void __launch_bounds__(threads_per_block) sum_kernel(Entries e, Walk<2> columns, Partial<A> partial) {
  const uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= columns.numel) return;
  const auto at = columns.offsets(c);
  for (int64_t i = int64_t{blockIdx.y} * blockDim.y + threadIdx.y; i * partial.piece < e.n;
       i += int64_t{gridDim.y} * blockDim.y)
    sum_piece<T, A>(e, partial, i, c, columns.data[1] + at[1], at[0]);
}

// What pieces from `next` on have for a place that goes on into them; again several are asked for at once.
template <class A>
__device__ __forceinline__ A sum_of_pieces(const Entries& e, const Partial<A>& partial, int64_t next, int64_t key,
                                           uint32_t c, A sum) {
  constexpr int ahead = 8;
  const int64_t last = (e.n - 1) / partial.piece;
  for (;; next += ahead) {
    A sums[ahead];
    bool ends[ahead];
#pragma unroll
    for (int k = 0; k < ahead; ++k) {
      const int64_t at = next + k < last ? next + k : last;
      sums[k] = partial.at(at, 0, c);
      ends[k] = at == last || e.keys[(at + 1) * partial.piece] != key;
    }
#pragma unroll
    for (int k = 0; k < ahead; ++k) {
      sum += sums[k];
      if (ends[k]) return sum;
    }
  }
}

// The piece in which a place begins that goes on beyond it adds what the next ones have for it.
template <class T, class A>
__global__ void __launch_bounds__(threads_per_block) join_kernel(Entries e, Walk<2> columns, Partial<A> partial) {
  const uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= columns.numel) return;
  const int64_t to = columns.offsets(c)[0];
  for (int64_t i = int64_t{blockIdx.y} * blockDim.y + threadIdx.y; (i + 1) * partial.piece < e.n;
       i += int64_t{gridDim.y} * blockDim.y) {
    const int64_t begin = i * partial.piece, end = begin + partial.piece, key = e.keys[end - 1];
    const bool begins = i == 0 || e.keys[begin - 1] != key;
    if (key < e.end && begins && e.keys[end] == key)
      add_to<T>(e, key, to, sum_of_pieces(e, partial, i + 1, key, c, partial.at(i, 1, c)));
  }
}

struct Grid {
  dim3 blocks, threads;
  Grid(int64_t columns, int64_t rows) {
    threads.x =
        static_cast<unsigned>(std::bit_ceil(static_cast<uint64_t>(std::min<int64_t>(columns, threads_per_block))));
    threads.y = threads_per_block / threads.x;
    blocks.x = static_cast<unsigned>((columns + threads.x - 1) / threads.x);
    blocks.y = static_cast<unsigned>(std::min<int64_t>((rows + threads.y - 1) / threads.y, 65535));
  }
};

}  // namespace loom::cuda
#endif
