// The largest or smallest element along one dimension, and where it stands first. Few long lines are cut into parts,
// which a second launch joins.
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

constexpr const char* name = "arg_reduce";

template <class C>
struct Best {
  C value;
  int64_t index;  // -1: nothing yet
};

// NaN wins; of equals the first.
template <ArgReduce op, class C>
struct Better {
  static __device__ bool beats(C a, C b) { return (op == ArgReduce::max ? a > b : a < b) || (a != a && b == b); }
  __device__ Best<C> operator()(const Best<C>& a, const Best<C>& b) const {
    if (a.index < 0 || b.index < 0) return a.index < 0 ? b : a;
    if (beats(a.value, b.value)) return a;
    if (beats(b.value, a.value)) return b;
    return a.index < b.index ? a : b;
  }
};

template <class C>
struct Lines {
  Walk<3> walk;  // x, values, index
  DType dtype;
  int64_t stride, length;
  int64_t first, lines;  // number of the walk's first line; lines of all walks
  Best<C>* parts;        // [parts, lines], or null

  __device__ void write(uint32_t line, const Best<C>& best) const {
    const auto at = walk.offsets(line);
    cuda::store(walk.data[1] + at[1], dtype, best.value);
    *reinterpret_cast<int64_t*>(walk.data[2] + at[2]) = best.index;
  }
};

// `group` threads a line, and gridDim.y parts of it.
template <ArgReduce op, class C>
__global__ void __launch_bounds__(threads_per_block) line_kernel(Lines<C> p, int group) {
  const int together = threads_per_block / group, thread = threadIdx.x % group;
  for (int64_t first = int64_t{blockIdx.x} * together; first < p.walk.numel; first += int64_t{gridDim.x} * together) {
    const auto line = static_cast<uint32_t>(first + threadIdx.x / group);
    const bool live = line < p.walk.numel;
    const char* const x = p.walk.data[0] + p.walk.offsets(live ? line : 0)[0];
    Best<C> best{C(0), -1};
    const int64_t step = int64_t{gridDim.y} * group;
    for (int64_t i = int64_t{blockIdx.y} * group + thread; live && i < p.length; i += step) {
      const C value = cuda::load<C>(x + i * p.stride, p.dtype);
      if (best.index < 0 || Better<op, C>::beats(value, best.value)) best = {value, i};
    }
    best = cuda::across_group<threads_per_block>(best, group, Better<op, C>());
    if (!live || thread != 0) continue;
    if (p.parts != nullptr)
      p.parts[blockIdx.y * p.lines + p.first + line] = best;
    else
      p.write(line, best);
  }
}

// A warp a line joins its parts.
template <ArgReduce op, class C>
__global__ void __launch_bounds__(threads_per_block) join_kernel(Lines<C> p, int64_t parts) {
  constexpr int together = threads_per_block / warp_size;
  for (int64_t first = int64_t{blockIdx.x} * together; first < p.walk.numel; first += int64_t{gridDim.x} * together) {
    const auto line = static_cast<uint32_t>(first + threadIdx.x / warp_size);
    const bool live = line < p.walk.numel;
    Best<C> best{C(0), -1};
    for (int64_t i = threadIdx.x % warp_size; live && i < parts; i += warp_size)
      best = Better<op, C>()(best, p.parts[i * p.lines + p.first + line]);
    best = cuda::across_lanes(best, warp_size, Better<op, C>());
    if (live && threadIdx.x % warp_size == 0) p.write(line, best);
  }
}

template <ArgReduce op, class C>
void run(cuda::Gpu& gpu, const View& values, const View& index, const View& x, int dim) {
  const View x_lines = cuda::without(x, dim), value_lines = cuda::without(values, dim),
             index_lines = cuda::without(index, dim);
  const cpu::Loop<3> loop({&x_lines, &value_lines, &index_lines});
  const int64_t lines = loop.numel(), length = x.shape[dim], processors = gpu.multiprocessors();
  const bool side_by_side = loop.dense(0, item_size(x.dtype)) && loop.inner_extent() >= warp_size;
  int group = 1;
  while (!side_by_side && group < warp_size && group * 2 < length) group *= 2;
  if (!side_by_side && (length > 4096 || (length > 512 && lines < processors * 64))) group = threads_per_block;
  const int64_t blocks = (lines * group + threads_per_block - 1) / threads_per_block;
  const int64_t parts = std::clamp<int64_t>(processors * 8 / std::max<int64_t>(blocks, 1), 1,
                                            std::max<int64_t>(length / (group * 16), 1));
  const cuda::Scratch memory(gpu, parts == 1 ? 0 : static_cast<size_t>(parts * lines) * sizeof(Best<C>));
  cuda::for_each_walk<3>(
      {&x_lines, &value_lines, &index_lines}, cpu::Order::any, [&](const Walk<3>& walk, int64_t first) {
        const Lines<C> p{walk, x.dtype, cuda::byte_stride(x, dim), length, first, lines, memory.as<Best<C>>()};
        cuda::launch(gpu, name, &line_kernel<op, C>,
                     dim3(cuda::grid_for(gpu, int64_t{walk.numel} * group), static_cast<unsigned>(parts)),
                     threads_per_block, 0, p, group);
        if (parts > 1)
          cuda::launch(gpu, name, &join_kernel<op, C>, cuda::grid_for(gpu, int64_t{walk.numel} * warp_size),
                       threads_per_block, 0, p, parts);
      });
}

}  // namespace

void Cuda::arg_reduce(ArgReduce op, const View& values, const View& index, const View& x, int dim) {
  if (x.numel() == 0) return;
  cuda::with_compute(cuda::compute_of(x.dtype), [&]<class C> {
    if (op == ArgReduce::max)
      run<ArgReduce::max, C>(gpu_, values, index, x, dim);
    else
      run<ArgReduce::min, C>(gpu_, values, index, x, dim);
  });
}

}  // namespace loom
