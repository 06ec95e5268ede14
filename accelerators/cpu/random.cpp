#include <loom/accelerators/random.h>

#include <algorithm>
#include <array>
#include <cmath>

#include <loom/accelerators/cpu/convert.h>
#include <loom/accelerators/cpu/cpu.h>
#include <loom/accelerators/cpu/words.h>

namespace loom {

namespace {

using cpu::Words;
using cpu::words;

// Number i of a run of words, in [0, 1).
template <class T>
T unit(const Words& w, int64_t i) {
  const auto at = static_cast<size_t>(i);
  if constexpr (std::is_same_v<T, float>)
    return to_uniform(w[at]);
  else
    return to_uniform(w[2 * at], w[2 * at + 1]);
}

// Calls make(words, run) for pieces of y in row-major order and stores the runs of T that it makes.
template <class T, class Make>
void draw(const View& y, const Philox& state, const Make& make) {
  constexpr int64_t piece = words * 4 / static_cast<int64_t>(sizeof(T));
  const cpu::Loop<1> loop({&y}, cpu::Order::row_major);
  const int64_t pieces = (loop.numel() + piece - 1) / piece, stride = loop.inner_stride(0);
  parallel_for(pieces, 8, [&](int64_t begin, int64_t end) {
    const cpu::WordSource source(state);
    cpu::Writer write(y.dtype, dtype_of<T>());
    alignas(64) Words w;
    alignas(64) std::array<T, piece> run;
    for (int64_t i = begin; i < end; ++i) {
      source(w, i * (words / 4));
      make(w, run);
      const T* next = run.data();
      loop.walk(i * piece, std::min((i + 1) * piece, loop.numel()), [&](const auto& p, int64_t n) {
        std::copy_n(next, n, static_cast<T*>(write.target(p[0], stride)));
        write.commit(p[0], stride, n);
        next += n;
      });
    }
  });
}

template <class T>
void draw_floating(Random kind, const View& y, double a, double b, const Philox& state) {
  const auto count = [](const auto& run) { return static_cast<int64_t>(run.size()); };
  const T first = static_cast<T>(a), second = static_cast<T>(b);
  if (kind == Random::uniform) {
    const T width = static_cast<T>(b - a), limit = draw::largest_below<T>(y.dtype, b);
    draw<T>(y, state, [&](const Words& w, auto& run) {
      for (int64_t i = 0; i < count(run); ++i)
        run[static_cast<size_t>(i)] = draw::uniform(unit<T>(w, i), first, width, limit);
    });
  } else if (kind == Random::normal) {
    draw<T>(y, state, [&](const Words& w, auto& run) {
      for (int64_t i = 0; i < count(run); i += 2) {
        const auto z = draw::normal_pair(unit<T>(w, i), unit<T>(w, i + 1));
        run[static_cast<size_t>(i)] = first + second * z.first;
        run[static_cast<size_t>(i) + 1] = first + second * z.second;
      }
    });
  } else {
    draw<T>(y, state, [&](const Words& w, auto& run) {
      for (int64_t i = 0; i < count(run); ++i) run[static_cast<size_t>(i)] = unit<T>(w, i) < first ? T(1) : T(0);
    });
  }
}

void draw_integers(const View& y, double a, double b, const Philox& state) {
  const auto first = static_cast<int64_t>(a);
  const uint64_t range = static_cast<uint64_t>(static_cast<int64_t>(b)) - static_cast<uint64_t>(first);
  draw<int64_t>(y, state, [&](const Words& w, auto& run) {
    for (size_t i = 0; i < run.size(); ++i) run[i] = draw::integer(w[2 * i], w[2 * i + 1], first, range);
  });
}

}  // namespace

void Cpu::random(Random kind, const View& y, double a, double b, const Philox& state) {
  if (kind == Random::integers) return draw_integers(y, a, b, state);
  if (kind != Random::bernoulli)
    check(is_floating(y.dtype), kind == Random::uniform ? "uniform" : "normal", ": expects a floating dtype, got ",
          y.dtype);
  if (y.dtype == f64)
    draw_floating<double>(kind, y, a, b, state);
  else
    draw_floating<float>(kind, y, a, b, state);
}

}  // namespace loom
