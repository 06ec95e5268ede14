// Arrays of channels in memory, [N, C, L] or with the channels last, and what is summed up of each channel, in two
// stages of fixed order.
#pragma once

#include <algorithm>
#include <limits>

#include <loom/accelerators/cuda/layout.h>
#include <loom/accelerators/cuda/rows.h>
#include <loom/accelerators/cuda/scratch.h>

#if defined(__CUDACC__)
namespace loom::cuda {

// Whether [N, C, L] lies in memory as [N, L, C].
inline bool channels_last(const View& x) {
  const int64_t expected[] = {x.shape[1] * x.shape[2], 1, x.shape[1]};
  for (int d = 0; d < 3; ++d)
    if (x.shape[d] != 1 && x.strides[d] != expected[d]) return false;
  return true;
}

// rows x [count] channels of `length` neighbours each; length 1: the channels are the neighbours.
struct Channels {
  int64_t rows, count, length;
  Channels(const Dims& shape, bool last)
      : rows(last || shape[2] == 0 ? shape[0] * shape[2] : shape[0]), count(shape[1]), length(last ? 1 : shape[2]) {
    check(rows * length <= std::numeric_limits<int32_t>::max() && count * length <= std::numeric_limits<int32_t>::max(),
          "batch_norm: shape ", shape, " is not implemented on cuda");
  }
};

// A statistic has a State, none() and join(), add_run<count>(state, at, channel), which adds neighbours of one channel,
// and add_each<count>(states, at, channel), which adds one element to each of several channels.
//
// First stage where channels have neighbours: parts[blockIdx.y][blockIdx.x], a block for a part of a channel.
template <int width, class Statistic>
__global__ void __launch_bounds__(threads_per_block)
    channel_kernel(typename Statistic::State* parts, Statistic statistic, Channels x, Divider by_length) {
  const int64_t c = blockIdx.x;
  const auto length = static_cast<uint32_t>(x.length / width), runs = static_cast<uint32_t>(x.rows) * length;
  auto state = statistic.none();
  for (uint32_t i = blockIdx.y * threads_per_block + threadIdx.x; i < runs; i += gridDim.y * threads_per_block) {
    const uint32_t row = by_length.quotient(i), position = i - row * length;
    statistic.template add_run<width>(state, (row * x.count + c) * x.length + int64_t{position} * width, c);
  }
  const auto join = [&](const auto& a, const auto& b) { return statistic.join(a, b); };
  state = across_block<threads_per_block>(state, join);
  if (threadIdx.x == 0) parts[blockIdx.y * x.count + c] = state;
}

// Where the channels are the neighbours: `across` threads side by side, the others of the block further rows.
template <int width, class Statistic>
__global__ void __launch_bounds__(threads_per_block)
    neighbours_kernel(typename Statistic::State* parts, Statistic statistic, Channels x, int across) {
  using State = typename Statistic::State;
  __shared__ State own[threads_per_block];
  const int together = threads_per_block / across;
  const int64_t c = (int64_t{blockIdx.x} * across + threadIdx.x % across) * width;
  State states[width];
#pragma unroll
  for (State& s : states) s = statistic.none();
  if (c < x.count)
    for (int64_t r = int64_t{blockIdx.y} * together + threadIdx.x / across; r < x.rows;
         r += int64_t{gridDim.y} * together)
      statistic.template add_each<width>(states, r * x.count + c, c);
#pragma unroll
  for (int j = 0; j < width; ++j) {
    __syncthreads();
    own[threadIdx.x] = states[j];
    __syncthreads();
    if (static_cast<int>(threadIdx.x) >= across || c >= x.count) continue;
    State all = states[j];
    for (int i = 1; i < together; ++i) all = statistic.join(all, own[threadIdx.x + i * across]);
    parts[blockIdx.y * x.count + c + j] = all;
  }
}

inline constexpr int finish_channels = 8;  // that a block of the second stage has

// Second stage: finish(channel, state) of all parts.
template <class Statistic, class Finish>
__global__ void __launch_bounds__(threads_per_block)
    finish_kernel(const typename Statistic::State* parts, Statistic statistic, int64_t count, int64_t channels,
                  Finish finish) {
  using State = typename Statistic::State;
  __shared__ State own[threads_per_block];
  constexpr int together = threads_per_block / finish_channels;
  const int64_t c = int64_t{blockIdx.x} * finish_channels + threadIdx.x % finish_channels;
  State state = statistic.none();
  for (int64_t i = threadIdx.x / finish_channels; c < channels && i < count; i += together)
    state = statistic.join(state, parts[i * channels + c]);
  own[threadIdx.x] = state;
  for (int half = together / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < half * finish_channels)
      own[threadIdx.x] = statistic.join(own[threadIdx.x], own[threadIdx.x + half * finish_channels]);
  }
  if (threadIdx.x < finish_channels && c < channels) finish(c, own[threadIdx.x]);
}

// Both stages. `aligned`: the arrays may be read 16 bytes at a time. sums: else the finish is given none().
template <class S, class Statistic, class Finish>
void for_each_channel(Gpu& gpu, const Channels& x, bool aligned, bool sums, const Statistic& statistic,
                      const Finish& finish) {
  using State = typename Statistic::State;
  const char* const name = "batch_norm";
  if (x.count == 0) return;
  const int64_t neighbours = x.length > 1 ? x.length : x.count, most_blocks = int64_t{gpu.multiprocessors()} * 8;
  int64_t parts = 0;
  const auto with_width = [&](const auto& f) {
    if (aligned && neighbours % Pack<S>::width == 0)
      f.template operator()<Pack<S>::width>();
    else
      f.template operator()<1>();
  };
  const auto parts_for = [&](int64_t blocks, int64_t work) {
    return std::min<int64_t>(std::clamp<int64_t>(most_blocks / blocks, 1, std::max<int64_t>(work, 1)), 65535);
  };
  with_width([&]<int width> {
    const int64_t units = x.count / width;
    int across = 1;
    while (across < units && across < warp_size) across *= 2;
    const int64_t blocks = x.length > 1 ? x.count : (units + across - 1) / across;
    const int64_t in_block = x.length > 1 ? int64_t{threads_per_block} * width : threads_per_block / across;
    parts = sums ? parts_for(blocks, x.rows * x.length / (in_block * 4)) : 0;
    const Scratch memory(gpu, static_cast<size_t>(parts * x.count) * sizeof(State));
    const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(parts));
    if (sums && x.length > 1)
      launch(gpu, name, &channel_kernel<width, Statistic>, grid, threads_per_block, 0, memory.as<State>(), statistic, x,
             Divider(static_cast<uint32_t>(x.length / width)));
    else if (sums)
      launch(gpu, name, &neighbours_kernel<width, Statistic>, grid, threads_per_block, 0, memory.as<State>(), statistic,
             x, across);
    launch(gpu, name, &finish_kernel<Statistic, Finish>,
           static_cast<unsigned>((x.count + finish_channels - 1) / finish_channels), threads_per_block, 0,
           memory.as<const State>(), statistic, parts, x.count, finish);
  });
}

}  // namespace loom::cuda
#endif
