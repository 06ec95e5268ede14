// How batch norm walks x [N, C, L], a channel after the other, and adds up what it sees.
#pragma once

#include <algorithm>
#include <array>
#include <utility>

#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/cpu/simd.h>
#include <loom/accelerators/threads.h>

namespace loom::cpu {

// x [N, C, L] as [runs] stretches of `length` per channel. Short stretches are slow to walk, so a view with small L is
// turned into [C, N, L] first, where each channel is one stretch.
struct Channels {
  int64_t count, runs, length, step, channel_step;
  bool turned;

  explicit Channels(const Dims& shape) : count(shape[1]), turned(shape[2] < 16) {
    runs = turned ? 1 : shape[0];
    length = turned ? shape[0] * shape[2] : shape[2];
    channel_step = length;
    step = turned ? 0 : count * length;
  }
  View arrange(View x) const {
    if (!turned || x.data == nullptr) return x;
    std::swap(x.shape[0], x.shape[1]);
    std::swap(x.strides[0], x.strides[1]);
    return x;
  }
  int64_t size() const { return runs * length; }
  template <class F>
  void for_each(const F& f) const {
    parallel_for(count, grain_of(size()), [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) f(c);
    });
  }
  // f(offset) for each stretch of channel c.
  template <class F>
  void for_runs(int64_t c, const F& f) const {
    for (int64_t r = 0; r < runs; ++r) f(c * channel_step + r * step);
  }
};

// Sums of `count` terms over n elements of several arrays: f(add, mask, x...) is given vectors x of each array and
// calls add(k, term) for each sum k; where mask is 0, which is past the end, terms must be 0.
template <class T, int count>
class Sums {
 public:
  template <class F, class... Arrays>
  void add(int64_t n, const F& f, const Arrays*... x) {
    static const Vec<T> all = broadcast(T(1));
    constexpr int64_t width = lanes<T>;
    int64_t i = 0;
    for (; i + ways * width <= n; i += ways * width) {
#pragma GCC unroll 4
      for (int way = 0; way < ways; ++way)
        f([&](int k, Vec<T> term) { sum_[way][k] += term; }, all, load(x + i + way * width)...);
    }
    for (; i < n; i += width) {
      const FirstLanes<T> rest(n - i < width ? n - i : width);
      f([&](int k, Vec<T> term) { sum_[0][k] += term; }, load(&ones_[0], rest), load(x + i, rest)...);
    }
  }
  double operator[](int k) const {
    double total = 0;
    for (int way = 0; way < ways; ++way)
      for (int lane = 0; lane < lanes<T>; ++lane) total += static_cast<double>(sum_[way][k][lane]);
    return total;
  }

 private:
  static constexpr int ways = 4;  // sums side by side, for the processor to work on while others are under way
  static constexpr std::array<T, lanes<T>> ones_ = [] {
    std::array<T, lanes<T>> ones{};
    ones.fill(T(1));
    return ones;
  }();
  Vec<T> sum_[ways][count] = {};
};

// Elements of which sums are kept in T before they are added in double; few enough to be read twice from the cache.
inline constexpr int64_t piece = 2048;

// Calls f(runs) with f'(offset, length) for pieces of a channel: whole stretches, or parts of long ones.
template <class F>
void for_pieces(const Channels& channels, int64_t c, const F& f) {
  const int64_t together = std::max<int64_t>(1, piece / std::max<int64_t>(1, channels.length));
  const int64_t base = c * channels.channel_step;
  for (int64_t r = 0; r < channels.runs; r += together)
    for (int64_t begin = 0; begin < channels.length; begin += piece) {
      const int64_t length = std::min(piece, channels.length - begin), last = std::min(channels.runs, r + together);
      f((last - r) * length, [=](const auto& run) {
        for (int64_t i = r; i < last; ++i) run(base + i * channels.step + begin, length);
      });
    }
}

}  // namespace loom::cpu
