// Kernels of reductions: along rows, across them, and the second stage that joins parts.
#pragma once

#include <loom/accelerators/cuda/folds.h>
#include <loom/accelerators/cuda/layout.h>

#if defined(__CUDACC__)
namespace loom::cuda {

// Where totals go: to parts of `outputs` numbers each, or through finish() to y.
template <class F>
struct Target {
  typename F::State* parts;  // null: y
  int64_t outputs;           // of all walks
  DType dtype;
  typename F::T count;  // elements that each output is made of

  __device__ void put(char* y, int64_t output, int64_t part, const typename F::State& total) const {
    if (parts != nullptr)
      parts[part * outputs + output] = total;
    else
      store(y, dtype, F::finish(total, count));
  }
};

// A piece of the reduced elements and of the outputs, both with x's addresses; kept has y's as well.
struct Piece {
  Walk<2> kept;  // x, y
  Walk<1> gone;
  int64_t first;  // number of the first output
  int64_t part;   // number of the first part
};

// `group` neighbouring threads (a power of two up to a warp, or the block) for an output.
template <class F, class Loader>
__global__ void __launch_bounds__(threads_per_block) along_kernel(Piece p, Loader loader, Target<F> target, int group) {
  using State = typename F::State;
  const int together = threads_per_block / group, thread = threadIdx.x % group;
  const auto join = [](const State& a, const State& b) { return F::join(a, b); };
  for (int64_t first = int64_t{blockIdx.x} * together; first < p.kept.numel; first += int64_t{gridDim.x} * together) {
    const auto o = static_cast<uint32_t>(first + threadIdx.x / group);
    const bool live = o < p.kept.numel;
    const auto at = p.kept.offsets(live ? o : 0);
    State total = F::none();
    const uint32_t step = gridDim.y * static_cast<uint32_t>(group);
    for (uint32_t i = blockIdx.y * static_cast<uint32_t>(group) + thread; live && i < p.gone.numel; i += step)
      loader.template add<F>(total, p.kept.data[0] + at[0] + p.gone.offsets(i)[0]);
    total = across_group<threads_per_block>(total, group, join);
    if (live && thread == 0) target.put(p.kept.data[1] + at[1], p.first + o, p.part + blockIdx.y, total);
  }
}

// A row without gaps an output, from any address: packs, and what lies before and after them.
template <class F, class S>
__global__ void __launch_bounds__(threads_per_block) row_kernel(Piece p, Target<F> target, int group) {
  using State = typename F::State;
  const int together = threads_per_block / group, thread = threadIdx.x % group;
  const auto join = [](const State& a, const State& b) { return F::join(a, b); };
  for (int64_t first = int64_t{blockIdx.x} * together; first < p.kept.numel; first += int64_t{gridDim.x} * together) {
    const auto o = static_cast<uint32_t>(first + threadIdx.x / group);
    const bool live = o < p.kept.numel;
    const auto at = p.kept.offsets(live ? o : 0);
    const S* const row = reinterpret_cast<const S*>(p.kept.data[0] + at[0]);
    State total = F::none();
    for_row(row, live ? p.gone.numel : 0, true, static_cast<int>(blockIdx.y) * group + thread,
            static_cast<int>(gridDim.y) * group, [&]<int count>(int64_t i) {
              const auto run = read_run<count>(row + i);
#pragma unroll
              for (int j = 0; j < count; ++j) F::add(total, static_cast<typename F::T>(run.items[j]));
            });
    total = across_group<threads_per_block>(total, group, join);
    if (live && thread == 0) target.put(p.kept.data[1] + at[1], p.first + o, p.part + blockIdx.y, total);
  }
}

// Loader::width neighbouring outputs a thread, `across` threads side by side, the others of the block further elements.
template <class F, class Loader>
__global__ void __launch_bounds__(threads_per_block)
    across_kernel(Piece p, Loader loader, Target<F> target, int across) {
  using State = typename F::State;
  constexpr int width = Loader::width;
  __shared__ State own[threads_per_block];
  const int together = threads_per_block / across;
  const int64_t stride = int64_t{across} * width;
  for (int64_t first = int64_t{blockIdx.x} * stride; first < p.kept.numel; first += int64_t{gridDim.x} * stride) {
    const auto o = static_cast<uint32_t>(first + threadIdx.x % across * width);
    const bool live = o < p.kept.numel;
    const char* const x = p.kept.data[0] + p.kept.offsets(live ? o : 0)[0];
    State totals[width];
#pragma unroll
    for (State& t : totals) t = F::none();
    const uint32_t step = gridDim.y * static_cast<uint32_t>(together);
    for (uint32_t i = blockIdx.y * static_cast<uint32_t>(together) + threadIdx.x / across; live && i < p.gone.numel;
         i += step)
      loader.template add_each<F>(totals, x + p.gone.offsets(i)[0]);
#pragma unroll
    for (int j = 0; j < width; ++j) {
      __syncthreads();
      own[threadIdx.x] = totals[j];
      for (int half = together / 2; half > 0; half /= 2) {
        __syncthreads();
        if (static_cast<int>(threadIdx.x) < half * across)
          own[threadIdx.x] = F::join(own[threadIdx.x], own[threadIdx.x + half * across]);
      }
      if (live && static_cast<int>(threadIdx.x) < across)
        target.put(p.kept.data[1] + p.kept.offsets(o + j)[1], p.first + o + j, p.part + blockIdx.y, own[threadIdx.x]);
    }
  }
}

// The parts of an output in their order; neighbouring outputs side by side.
inline constexpr int finished_together = 8;
template <class F>
__global__ void __launch_bounds__(threads_per_block)
    finish_kernel(Walk<2> kept, int64_t first_output, int64_t parts, Target<F> target) {
  using State = typename F::State;
  __shared__ State own[threads_per_block];
  constexpr int together = threads_per_block / finished_together;
  for (int64_t first = int64_t{blockIdx.x} * finished_together; first < kept.numel;
       first += int64_t{gridDim.x} * finished_together) {
    const int64_t o = first + threadIdx.x % finished_together;
    State total = F::none();
    for (int64_t i = threadIdx.x / finished_together; o < kept.numel && i < parts; i += together)
      total = F::join(total, target.parts[i * target.outputs + first_output + o]);
    __syncthreads();
    own[threadIdx.x] = total;
    for (int half = together / 2; half > 0; half /= 2) {
      __syncthreads();
      if (static_cast<int>(threadIdx.x) < half * finished_together)
        own[threadIdx.x] = F::join(own[threadIdx.x], own[threadIdx.x + half * finished_together]);
    }
    if (threadIdx.x < finished_together && o < kept.numel)
      store(kept.data[1] + kept.offsets(static_cast<uint32_t>(o))[1], target.dtype,
            F::finish(own[threadIdx.x], target.count));
  }
}

}  // namespace loom::cuda
#endif
