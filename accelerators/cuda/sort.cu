// Sorting along one dimension. Elements become unsigned keys whose order is the wanted one; all lines are sorted at
// once by line and key, equal keys staying in order, and then the first elements of each line are fetched.
#include <bit>

#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/device_sort.h>
#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/cuda/launch.h>
#include <loom/accelerators/cuda/lines.h>
#include <loom/accelerators/cuda/scratch.h>

namespace loom {

namespace {

using cuda::threads_per_block;
using cuda::Walk;

constexpr const char* name = "sort";
constexpr int64_t together = int64_t{1} << 27;  // elements of several lines that are sorted at once

// Order of keys = order of numbers; -0 equals 0, NaN comes after infinity.
__device__ __forceinline__ uint64_t key_of(float x) {
  if (x != x) return 0xffffffffu;
  const auto bits = std::bit_cast<uint32_t>(x == 0.0f ? 0.0f : x);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ uint64_t key_of(double x) {
  if (x != x) return ~uint64_t{0};
  const auto bits = std::bit_cast<uint64_t>(x == 0.0 ? 0.0 : x);
  return bits >> 63 ? ~bits : bits | uint64_t{1} << 63;
}
__device__ __forceinline__ uint64_t key_of(int64_t x) {
  return static_cast<uint64_t>(x) ^ uint64_t { 1 } << 63;
}
__device__ __forceinline__ uint64_t key_of(int32_t x) { return static_cast<uint32_t>(x) ^ 0x80000000u; }

// Bits of a key that differ, and where they begin: 16-bit numbers as f32 leave some alone.
struct KeyBits {
  int from, count;
  explicit KeyBits(DType t) : from(t == bf16 ? 16 : t == f16 ? 13 : 0), count(item_size(t) == 8 ? 64 : 32 - from) {
    if (item_size(t) == 1) count = 8;
  }
  int line_bits(int64_t lines) const { return std::bit_width(static_cast<uint64_t>(lines - 1)); }
};

// Lines [first_line, first_line + lines) of the walk, whose elements are numbered line by line.
struct Lines {
  Walk<3> walk;  // x, values, index
  uint32_t first_line, lines, length;
  cuda::Divider by_length;
  int64_t x_stride, value_stride, index_stride;
  __device__ uint32_t line_of(uint32_t i) const { return by_length.quotient(i); }
  __device__ auto at(uint32_t line) const { return walk.offsets(first_line + line); }
};

// Keys narrower than a word have their line above them.
template <class T>
__global__ void __launch_bounds__(threads_per_block)
    key_kernel(cuda::Pairs out, Lines p, DType dtype, bool descending, KeyBits bits) {
  cuda::for_each_item(static_cast<uint32_t>(out.count), [&](uint32_t i) {
    const uint32_t line = p.line_of(i);
    const char* const x = p.walk.data[0] + p.at(line)[0] + int64_t{i - line * p.length} * p.x_stride;
    uint64_t key = key_of(cuda::load<T>(x, dtype));
    if (descending) key = ~key;
    if (bits.count < 64) key = (key >> bits.from & ((uint64_t{1} << bits.count) - 1)) | uint64_t{line} << bits.count;
    out.keys[i] = key;
    out.values[i] = i;
  });
}

__global__ void __launch_bounds__(threads_per_block) line_kernel(cuda::Pairs out, Lines p) {
  cuda::for_each_item(static_cast<uint32_t>(out.count), [&](uint32_t i) { out.keys[i] = p.line_of(out.values[i]); });
}

// The elements themselves, not their keys: NaN payloads and the sign of zero are kept.
template <class Bits>
__global__ void __launch_bounds__(threads_per_block)
    fetch_kernel(const uint32_t* order, Lines p, uint32_t k, cuda::Divider by_k) {
  cuda::for_each_item(p.lines * k, [&](uint32_t i) {
    const uint32_t line = by_k.quotient(i), begin = line * p.length;
    const int64_t to = i - line * k, from = order[begin + static_cast<uint32_t>(to)] - begin;
    const auto at = p.at(line);
    *reinterpret_cast<Bits*>(p.walk.data[1] + at[1] + to * p.value_stride) =
        *reinterpret_cast<const Bits*>(p.walk.data[0] + at[0] + from * p.x_stride);
    *reinterpret_cast<int64_t*>(p.walk.data[2] + at[2] + to * p.index_stride) = from;
  });
}

template <class T>
void sort_lines(cuda::Gpu& gpu, cuda::Pairs pairs, const Lines& p, DType dtype, int64_t k, bool descending) {
  const KeyBits bits(dtype);
  const int blocks = cuda::grid_for(gpu, pairs.count);
  cuda::launch(gpu, name, &key_kernel<T>, blocks, threads_per_block, 0, pairs, p, dtype, descending, bits);
  if (bits.count < 64) {
    cuda::sort_pairs(gpu, pairs, bits.count + bits.line_bits(p.lines));
  } else {
    cuda::sort_pairs(gpu, pairs, bits.count);
    if (p.lines > 1) cuda::launch(gpu, name, &line_kernel, blocks, threads_per_block, 0, pairs, p);
    cuda::sort_pairs(gpu, pairs, bits.line_bits(p.lines));
  }
  cuda::with_bits(dtype, [&]<class Bits> {
    cuda::launch(gpu, name, &fetch_kernel<Bits>, cuda::grid_for(gpu, p.lines * k), threads_per_block, 0,
                 static_cast<const uint32_t*>(pairs.values), p, static_cast<uint32_t>(k),
                 cuda::Divider(static_cast<uint32_t>(k)));
  });
}

template <class T>
void run(cuda::Gpu& gpu, const View& values, const View& index, const View& x, int dim, bool descending) {
  const int64_t length = x.shape[dim], k = values.shape[dim];
  check(length <= std::numeric_limits<int32_t>::max(), "sort: lines of ", length,
        " elements are not implemented on cuda");
  const View x_lines = cuda::without(x, dim), value_lines = cuda::without(values, dim),
             index_lines = cuda::without(index, dim);
  const int64_t at_once = std::clamp<int64_t>(together / length, 1, x.numel() / length);
  const auto room = static_cast<size_t>(at_once * length);
  const cuda::Scratch keys(gpu, 2 * room * sizeof(uint64_t)), order(gpu, 2 * room * sizeof(uint32_t));
  cuda::for_each_walk<3>(
      {&x_lines, &value_lines, &index_lines}, cpu::Order::row_major, [&](const Walk<3>& walk, int64_t) {
        for (int64_t first = 0; first < walk.numel; first += at_once) {
          const int64_t lines = std::min<int64_t>(at_once, walk.numel - first);
          const Lines p{walk,
                        static_cast<uint32_t>(first),
                        static_cast<uint32_t>(lines),
                        static_cast<uint32_t>(length),
                        cuda::Divider(static_cast<uint32_t>(length)),
                        cuda::byte_stride(x, dim),
                        cuda::byte_stride(values, dim),
                        cuda::byte_stride(index, dim)};
          uint64_t* const key = keys.as<uint64_t>();
          uint32_t* const value = order.as<uint32_t>();
          sort_lines<T>(gpu, {key, key + room, value, value + room, lines * length}, p, x.dtype, k, descending);
        }
      });
}

}  // namespace

void Cuda::sort(const View& values, const View& index, const View& x, int dim, bool descending) {
  if (x.numel() == 0 || values.numel() == 0) return;
  if (x.dtype == f64) return run<double>(gpu_, values, index, x, dim, descending);
  if (x.dtype == i64) return run<int64_t>(gpu_, values, index, x, dim, descending);
  if (is_integral(x.dtype)) return run<int32_t>(gpu_, values, index, x, dim, descending);
  run<float>(gpu_, values, index, x, dim, descending);
}

}  // namespace loom
