// Softmax and its logarithm along one dim, and their gradients, on dense [outer, n, inner].
#include <algorithm>
#include <array>

#include <loom/accelerators/cpu/exp_rows.h>
#include <loom/accelerators/cpu/rows.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/cpu/stream.h>
#include <loom/accelerators/cpu/sums.h>
#include <loom/accelerators/threads.h>

namespace loom {
using namespace cpu;

namespace {

constexpr int64_t block = 64;   // columns taken together where dim is not the last
constexpr int64_t piece = 256;  // of a row, written while memory is asked for the same of the next one
constexpr int64_t longest_kept = int64_t{1} << 18;  // of longer rows powers are computed twice instead of being kept

struct Extents {
  int64_t outer = 1, n = 1, inner = 1;
  Extents(int64_t outer_extent, int64_t length, int64_t inner_extent)
      : outer(outer_extent), n(length), inner(inner_extent) {}
  Extents(const Dims& shape, int dim) {
    for (int d = 0; d < shape.size(); ++d) (d < dim ? outer : d == dim ? n : inner) *= shape[d];
  }
};

// write(y, begin, length) for the pieces of a row of results: in memory or, for large outputs, past the caches.
// on_the_way is called before each.
template <class S, class F, class G>
[[gnu::always_inline]] inline void write_row(RowTarget<S>& target, S* y, int64_t n, const F& write,
                                             const G& on_the_way) {
  for (int64_t i = 0; i < n; i += piece) {
    const int64_t length = std::min(piece, n - i);
    on_the_way(i, length);
    write(target.begin(y + i), i, length);
    target.end(y + i, length);
  }
}

// f(rows of the inputs) gives write() for the row of results.
template <class S, class F, class... In>
void for_each_row(S* y, const Extents& e, const F& f, const In*... in) {
  parallel_for(e.outer, grain_of(e.n * 4), [&](int64_t begin, int64_t end) {
    RowTarget<S> target(e.outer * e.n, std::min(e.n, piece));
    std::array<RowSource<S>, sizeof...(in)> sources = {(static_cast<void>(in), RowSource<S>(e.n))...};
    for (int64_t r = begin; r < end; ++r) {
      const int64_t at = r * e.n;
      size_t k = 0;
      const std::array rows = {sources[k++](in + at, e.n)...};
      write_row(target, y + at, e.n, f(rows), [&](int64_t i, int64_t length) {
        if (r + 1 < end) (ask_for_row(in + at + e.n + i, length), ...);
      });
    }
  });
}

// Rows shorter than a vector: f(tile of results, tiles of inputs ..., width) on tiles of them, turned.
template <class T, class F, class... In>
void for_each_tile(T* y, const Extents& e, const F& f, const In*... in) {
  const int64_t tiles = (e.outer + tile_rows - 1) / tile_rows;
  parallel_for(tiles, grain_of(e.n * tile_rows * 8), [&](int64_t begin, int64_t end) {
    alignas(64) T out[short_row * tile_rows], turned[sizeof...(in)][short_row * tile_rows];
    for (int64_t t = begin; t < end; ++t) {
      const int64_t first = t * tile_rows, width = std::min(tile_rows, e.outer - first);
      size_t k = 0;
      (turn_rows(turned[k++], in + first * e.n, width, e.n), ...);
      f(out, turned, width);
      turn_back(y + first * e.n, out, width, e.n);
    }
  });
}

// Calls f(offset, width) for every block of adjacent columns.
template <class F>
void for_each_line(const Extents& e, const F& f) {
  const int64_t blocks = (e.inner + block - 1) / block, width = std::min(block, e.inner);
  parallel_for(e.outer * blocks, grain_of(e.n * width * 4), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t column = i % blocks * block;
      f(i / blocks * e.n * e.inner + column, std::min(block, e.inner - column));
    }
  });
}

// work: exp(x[i] - top), or null.
template <bool log, class T>
auto softmax_writer(const ExpRow<T>& row, const T* work) {
  const auto by = static_cast<T>(log ? std::log(row.sum) : 1 / row.sum);
  return [x = row.x, top = row.top, work, by](T* __restrict y, int64_t begin, int64_t length) {
    const T* const from = (work == nullptr ? x : work) + begin;
    if (log)
      for (int64_t i = 0; i < length; ++i) y[i] = from[i] - top - by;
    else if (work == nullptr)
      for (int64_t i = 0; i < length; ++i) y[i] = vector_math::exp_below(from[i] - top) * by;
    else
      for (int64_t i = 0; i < length; ++i) y[i] = from[i] * by;
  };
}

template <bool log, class S>
void softmax_rows(S* y, const S* x, const Extents& e) {
  using T = compute_type<S>;
  const bool kept = !log && e.n <= longest_kept;
  parallel_for(e.outer, grain_of(e.n * 4), [&](int64_t begin, int64_t end) {
    RowTarget<S> target(e.outer * e.n, std::min(e.n, piece));
    const Scratch<T> work = kept ? Scratch<T>(e.n) : Scratch<T>();
    RowSource<S> source(e.n);
    for (int64_t r = begin; r < end; ++r) {
      const auto* const row = source(x + r * e.n, e.n);
      const RowAfter<S> after(r + 1 < end ? x + (r + 1) * e.n : nullptr, e.n);
      const auto found = (kept ? exp_row<true, T, S> : exp_row<false, T, S>)(work.data(), row, e.n, after);
      write_row(target, y + r * e.n, e.n, softmax_writer<log>(found, work.data()), [](int64_t, int64_t) {});
    }
  });
}

// One line across the columns of a block: y = exp(x - top) or, for the logarithm, x - top; the sums grow by exp(x -
// top).
template <bool log, class T>
void add_line(T* __restrict y, const T* __restrict x, const T* __restrict top, T* __restrict sum, int64_t width) {
  for (int64_t j = 0; j < width; ++j) {
    const T shifted = x[j] - top[j], power = vector_math::exp_below(shifted);
    sum[j] += power;
    y[j] = log ? shifted : power;
  }
}

template <bool log, class T>
void softmax_columns(T* y, const T* x, const Extents& e, int64_t width) {
  alignas(64) T top[block], sum[block];
  std::copy_n(x, width, top);
  std::fill_n(sum, width, T(0));
  for (int64_t i = 1; i < e.n; ++i)
    for (int64_t j = 0; j < width; ++j) top[j] = x[i * e.inner + j] > top[j] ? x[i * e.inner + j] : top[j];
  for (int64_t i = 0; i < e.n; ++i) add_line<log>(y + i * e.inner, x + i * e.inner, top, sum, width);
  for (int64_t j = 0; j < width; ++j) sum[j] = log ? vector_math::log(sum[j]) : T(1) / sum[j];
  for (int64_t i = 0; i < e.n; ++i)
    for (int64_t j = 0; j < width; ++j) {
      T& out = y[i * e.inner + j];
      out = log ? out - sum[j] : out * sum[j];
    }
}

// write(dx, begin, length) of a row.
template <bool log, class T>
auto grad_row(const T* dy, const T* y, int64_t n) {
  const auto sum = static_cast<T>([=] {
    if constexpr (log)
      return sums_of<T, 1>(
          n, [](Vec<T> g) { return std::array{g}; }, dy)[0];
    else
      return sums_of<T, 1>(
          n, [](Vec<T> g, Vec<T> v) { return std::array{g * v}; }, dy, y)[0];
  }());
  return [=](T* __restrict dx, int64_t begin, int64_t length) {
    const T *const from = y + begin, *const g = dy + begin;
    for (int64_t i = 0; i < length; ++i) dx[i] = log ? g[i] - vector_math::exp(from[i]) * sum : from[i] * (g[i] - sum);
  };
}

template <bool log, class T>
void grad_line(T* __restrict dx, const T* __restrict dy, const T* __restrict y, const T* __restrict sum,
               int64_t width) {
  for (int64_t j = 0; j < width; ++j) dx[j] = log ? dy[j] - vector_math::exp(y[j]) * sum[j] : y[j] * (dy[j] - sum[j]);
}

template <bool log, class T>
void grad_columns(T* dx, const T* dy, const T* y, const Extents& e, int64_t width) {
  alignas(64) T sum[block];
  std::fill_n(sum, width, T(0));
  for (int64_t i = 0; i < e.n; ++i)
    for (int64_t j = 0; j < width; ++j) sum[j] += log ? dy[i * e.inner + j] : dy[i * e.inner + j] * y[i * e.inner + j];
  for (int64_t i = 0; i < e.n; ++i) grad_line<log>(dx + i * e.inner, dy + i * e.inner, y + i * e.inner, sum, width);
}

// Rows long enough for vectors along them: any floating dtype is read as it is.
bool along_rows(const Extents& e) { return e.inner == 1 && e.n > short_row; }

}  // namespace

void Cpu::softmax(const View& y, const View& x, int dim, bool log) {
  with_floating(log ? "log_softmax" : "softmax", x.dtype, [&]<class S> {
    if (y.numel() == 0) return;
    using T = compute_type<S>;
    const Extents e(x.shape, dim);
    if (along_rows(e)) {
      const DenseInput<S> in(x);
      const DenseOutput<S> out(y);
      (log ? softmax_rows<true, S> : softmax_rows<false, S>)(out.data(), in.data(), e);
      return out.store();
    }
    const DenseInput<T> in(x);
    const DenseOutput<T> out(y);
    const auto columns = log ? softmax_columns<true, T> : softmax_columns<false, T>;
    if (e.inner == 1)
      for_each_tile(
          out.data(), e,
          [&](T* to, const auto& from, int64_t width) {
            columns(to, from[0], {1, e.n, tile_rows}, width);
          },
          in.data());
    else
      for_each_line(e, [&](int64_t at, int64_t width) { columns(out.data() + at, in.data() + at, e, width); });
    out.store();
  });
}

void Cpu::softmax_grad(const View& dx, const View& dy, const View& y, int dim, bool log) {
  with_floating(log ? "log_softmax" : "softmax", y.dtype, [&]<class S> {
    if (dx.numel() == 0) return;
    using T = compute_type<S>;
    const Extents e(y.shape, dim);
    if (along_rows(e)) {
      const DenseInput<S> g(dy), in(y);
      const DenseOutput<S> out(dx);
      const auto rows = [&]<bool logarithm> {
        for_each_row(
            out.data(), e, [&](const auto& row) { return grad_row<logarithm>(row[0], row[1], e.n); }, g.data(),
            in.data());
      };
      log ? rows.template operator()<true>() : rows.template operator()<false>();
      return out.store();
    }
    const DenseInput<T> g(dy), in(y);
    const DenseOutput<T> out(dx);
    const auto columns = log ? grad_columns<true, T> : grad_columns<false, T>;
    if (e.inner == 1)
      for_each_tile(
          out.data(), e,
          [&](T* to, const auto& from, int64_t width) {
            columns(to, from[0], from[1], {1, e.n, tile_rows}, width);
          },
          g.data(), in.data());
    else
      for_each_line(
          e, [&](int64_t at, int64_t width) { columns(out.data() + at, g.data() + at, in.data() + at, e, width); });
    out.store();
  });
}

}  // namespace loom
