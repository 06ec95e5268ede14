// Running sums and products along one dimension, in f64 or i64. Sums of few long lines are scanned by blocks, in chunks
// whose totals are scanned first. Products go one element after the other: what overflows behind a zero must not count.
#include <loom/accelerators/cuda/collective.h>
#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/cuda/launch.h>
#include <loom/accelerators/cuda/lines.h>
#include <loom/accelerators/cuda/scratch.h>

namespace loom {

namespace {

using cuda::threads_per_block;
using cuda::Walk;
using cuda::warp_size;

constexpr const char* name = "cumulative";
constexpr int items = 4;  // neighbours that a thread of a scan takes
constexpr int64_t tile = int64_t{threads_per_block} * items;

struct Lines {
  Walk<2> walk;  // x, y
  DType x_type, y_type;
  int64_t x_stride, y_stride, length;
};

// Integers wrap.
template <Cumulative op, class T>
__device__ __forceinline__ T join(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    const auto u = static_cast<uint64_t>(a), v = static_cast<uint64_t>(b);
    return static_cast<T>(op == Cumulative::sum ? u + v : u * v);
  } else {
    return op == Cumulative::sum ? a + b : a * b;
  }
}

// A thread a line.
template <Cumulative op, class T>
__global__ void __launch_bounds__(threads_per_block) line_kernel(Lines p) {
  cuda::for_each_item(p.walk.numel, [&](uint32_t line) {
    const auto at = p.walk.offsets(line);
    const char* const x = p.walk.data[0] + at[0];
    char* const y = p.walk.data[1] + at[1];
    T total = op == Cumulative::sum ? T(0) : T(1);
    for (int64_t i = 0; i < p.length; ++i) {
      total = join<op, T>(total, cuda::load<T>(x + i * p.x_stride, p.x_type));
      cuda::store(y + i * p.y_stride, p.y_type, total);
    }
  });
}

// The sum of all threads' values before this one, and of all.
template <class T>
struct Scanned {
  T before, total;
};
template <class T>
__device__ Scanned<T> scan_block(T value) {
  constexpr int warps = threads_per_block / warp_size;
  constexpr auto plus = join<Cumulative::sum, T>;
  __shared__ T sums[warps];
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  T upto = value;
  for (int by = 1; by < warp_size; by *= 2) {
    const T other = __shfl_up_sync(cuda::all_lanes, upto, by);
    if (lane >= by) upto = plus(other, upto);
  }
  const T left = __shfl_up_sync(cuda::all_lanes, upto, 1);
  __syncthreads();  // the sums of the last call have been read
  if (lane == warp_size - 1) sums[warp] = upto;
  __syncthreads();
  Scanned<T> out{T(0), T(0)};
  for (int i = 0; i < warps; ++i) {
    if (i == warp) out.before = out.total;
    out.total = plus(out.total, sums[i]);
  }
  if (lane > 0) out.before = plus(out.before, left);
  return out;
}

// The sum of each chunk: totals[line * chunks + chunk].
template <class T>
__global__ void __launch_bounds__(threads_per_block)
    total_kernel(Lines p, T* totals, int64_t first_line, int64_t chunks, int64_t chunk) {
  const auto plus = [](T a, T b) { return join<Cumulative::sum, T>(a, b); };
  for (int64_t b = blockIdx.x; b < p.walk.numel * chunks; b += gridDim.x) {
    const int64_t line = b / chunks, begin = b % chunks * chunk;
    const int64_t end = begin + chunk < p.length ? begin + chunk : p.length;
    const char* const x = p.walk.data[0] + p.walk.offsets(static_cast<uint32_t>(line))[0];
    T sum = 0;
    for (int64_t i = begin + threadIdx.x; i < end; i += threads_per_block)
      sum = plus(sum, cuda::load<T>(x + i * p.x_stride, p.x_type));
    sum = cuda::across_block<threads_per_block>(sum, plus);
    if (threadIdx.x == 0) totals[first_line * chunks + b] = sum;
  }
}

// A block a chunk; `totals`, running sums of the chunks', says where each begins. x and y may be the same.
template <class T>
__global__ void __launch_bounds__(threads_per_block)
    scan_kernel(Lines p, const T* totals, int64_t first_line, int64_t chunks, int64_t chunk) {
  constexpr auto plus = join<Cumulative::sum, T>;
  for (int64_t b = blockIdx.x; b < p.walk.numel * chunks; b += gridDim.x) {
    const int64_t line = b / chunks, begin = b % chunks * chunk;
    const int64_t end = begin + chunk < p.length ? begin + chunk : p.length;
    const auto at = p.walk.offsets(static_cast<uint32_t>(line));
    const char* const x = p.walk.data[0] + at[0];
    char* const y = p.walk.data[1] + at[1];
    T carry = begin == 0 ? T(0) : totals[first_line * chunks + b - 1];
    for (int64_t first = begin; first < end; first += tile) {
      const int64_t own = first + int64_t{threadIdx.x} * items;
      T value[items], sum = 0;
#pragma unroll
      for (int j = 0; j < items; ++j) {
        value[j] = own + j < end ? cuda::load<T>(x + (own + j) * p.x_stride, p.x_type) : T(0);
        sum = plus(sum, value[j]);
      }
      const Scanned<T> scanned = scan_block(sum);
      T running = plus(carry, scanned.before);
#pragma unroll
      for (int j = 0; j < items; ++j) {
        running = plus(running, value[j]);
        if (own + j < end) cuda::store(y + (own + j) * p.y_stride, p.y_type, running);
      }
      carry = plus(carry, scanned.total);
    }
  }
}

template <class T>
class Scan {
 public:
  Scan(cuda::Gpu& gpu, const View& y, const View& x, int dim)
      : gpu_(gpu),
        x_starts_(cuda::without(x, dim)),
        y_starts_(cuda::without(y, dim)),
        shape_{{}, x.dtype, y.dtype, cuda::byte_stride(x, dim), cuda::byte_stride(y, dim), x.shape[dim]} {}

  template <Cumulative op>
  void by_lines() const {
    for_each([&](const Lines& p, int64_t) {
      cuda::launch(gpu_, name, &line_kernel<op, T>, cuda::grid_for(gpu_, p.walk.numel), threads_per_block, 0, p);
    });
  }

  void by_blocks() const {
    const int64_t lines = x_starts_.numel(), tiles = (shape_.length + tile - 1) / tile;
    const int64_t wanted = std::clamp<int64_t>(gpu_.multiprocessors() * 4 / lines, 1, (tiles + 3) / 4);
    const int64_t chunk = (tiles + wanted - 1) / wanted * tile, chunks = (shape_.length + chunk - 1) / chunk;
    const cuda::Scratch memory(gpu_, chunks == 1 ? 0 : static_cast<size_t>(lines * chunks) * sizeof(T));
    T* const totals = memory.as<T>();
    if (chunks > 1) {
      for_each([&](const Lines& p, int64_t first) { start(&total_kernel<T>, p, totals, first, chunks, chunk); });
      const View all = view_over(totals, dtype_of<T>(), {lines, chunks}, x_starts_.device);
      const Scan of_totals(gpu_, all, all, 1);
      of_totals.for_each([&](const Lines& p, int64_t first) {
        start(&scan_kernel<T>, p, static_cast<const T*>(nullptr), first, 1, chunks);
      });
    }
    for_each([&](const Lines& p, int64_t first) {
      start(&scan_kernel<T>, p, static_cast<const T*>(totals), first, chunks, chunk);
    });
  }

 private:
  template <class F>
  void for_each(const F& f) const {
    // In the views' order, which numbers the totals as well.
    cuda::for_each_walk<2>({&x_starts_, &y_starts_}, cpu::Order::row_major, [&](const Walk<2>& walk, int64_t first) {
      Lines p = shape_;
      p.walk = walk;
      f(static_cast<const Lines&>(p), first);
    });
  }
  template <class Totals>
  void start(void (*kernel)(Lines, Totals, int64_t, int64_t, int64_t), const Lines& p, Totals totals, int64_t first,
             int64_t chunks, int64_t chunk) const {
    const auto blocks = static_cast<unsigned>(std::min<int64_t>(p.walk.numel * chunks, int64_t{1} << 30));
    cuda::launch(gpu_, name, kernel, blocks, threads_per_block, 0, p, totals, first, chunks, chunk);
  }

  cuda::Gpu& gpu_;
  View x_starts_, y_starts_;
  Lines shape_;
};

}  // namespace

void Cuda::cumulative(Cumulative op, const View& y, const View& x, int dim) {
  if (x.numel() == 0) return;
  const int64_t length = x.shape[dim], lines = x.numel() / length;
  const View starts = cuda::without(x, dim);
  const cpu::Loop<1> loop({&starts});
  const bool side_by_side = loop.dense(0, item_size(x.dtype)) && loop.inner_extent() >= warp_size;
  const bool many = lines >= int64_t{gpu_.multiprocessors()} * threads_per_block;
  const auto run = [&]<class T> {
    const Scan<T> scan(gpu_, y, x, dim);
    if (op == Cumulative::product)
      scan.template by_lines<Cumulative::product>();
    else if (length <= 32 || (side_by_side && many))
      scan.template by_lines<Cumulative::sum>();
    else
      scan.by_blocks();
  };
  if (is_integral(x.dtype))
    run.operator()<int64_t>();
  else
    run.operator()<double>();
}

}  // namespace loom
