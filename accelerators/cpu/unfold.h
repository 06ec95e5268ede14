// im2col and its transpose, for the output rows [first, last) of one image and group.
#pragma once

#include <algorithm>

#include <loom/accelerators/cpu/conv.h>

namespace loom::cpu {

namespace unfold_detail {

// Calls f(source plane, column row, kh, kw) for each of the taps() rows of the column matrix.
template <class X, class T, class F>
void for_each_tap(const ConvShape& s, X* x, T* column, int64_t pitch, const F& f) {
  for (int64_t c = 0; c < s.group_channels; ++c)
    for (int64_t kh = 0; kh < s.kernel_h; ++kh)
      for (int64_t kw = 0; kw < s.kernel_w; ++kw, column += pitch) f(x + c * s.plane(), column, kh, kw);
}

// With stride 1 and y as wide as x, a tap is the whole plane shifted: one long run, wrong at the edge columns only.
inline bool is_shift(const ConvShape& s) { return s.g.stride[0] == 1 && s.g.stride[1] == 1 && s.out_width == s.width; }

struct Run {
  int64_t source, begin, end;  // column[p] pairs with x[source + p] for p in [begin, end)
};
inline Run shift_run(const ConvShape& s, int64_t kh, int64_t kw, int64_t first, ConvRange rows) {
  const int64_t source = (first + s.row_shift(kh)) * s.width + s.column_shift(kw);
  return {source, std::max((rows.begin - first) * s.width, -source),
          std::min((rows.end - first) * s.width, s.plane() - source)};
}

template <class T>
void clear_edges(T* column, int64_t rows, int64_t width, ConvRange columns) {
  for (int64_t r = 0; r < rows; ++r, column += width) {
    for (int64_t i = 0; i < columns.begin; ++i) column[i] = T(0);
    for (int64_t i = columns.end; i < width; ++i) column[i] = T(0);
  }
}

// A function of its own: inlined, its step does not stay in a register.
template <class T>
[[gnu::noinline]] void add_apart(T* to, int64_t step, const T* from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i * step] += from[i];
}

}  // namespace unfold_detail

// column [taps, (last - first) * out_width] from the group's channels x.
template <class T>
void unfold(const ConvShape& s, T* column, const T* x, int64_t first, int64_t last) {
  const int64_t ow = s.out_width, count = last - first, step = s.g.stride[1];
  const bool shift = unfold_detail::is_shift(s);
  unfold_detail::for_each_tap(s, x, column, count * ow, [=, &s](const T* from, T* to, int64_t kh, int64_t kw) {
    const ConvRange all = s.rows(kh), columns = s.columns(kw);
    const ConvRange rows{std::clamp(all.begin, first, last), std::clamp(all.end, first, last)};
    std::fill(to, to + (rows.begin - first) * ow, T(0));
    std::fill(to + std::max(rows.end - first, rows.begin - first) * ow, to + count * ow, T(0));
    if (shift) {
      const auto run = unfold_detail::shift_run(s, kh, kw, first, rows);
      if (run.begin < run.end) std::copy(from + run.source + run.begin, from + run.source + run.end, to + run.begin);
      unfold_detail::clear_edges(to + (rows.begin - first) * ow, rows.end - rows.begin, ow, columns);
      return;
    }
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      T* const out = to + (r - first) * ow;
      const T* const in = from + (r * s.g.stride[0] + s.row_shift(kh)) * s.width + s.column_shift(kw);
      for (int64_t i = columns.begin; i < columns.end; ++i) out[i] = in[i * step];
    }
    unfold_detail::clear_edges(to + (rows.begin - first) * ow, rows.end - rows.begin, ow, columns);
  });
}

// Adds each column element to the element of x that it was unfolded from; overwrites the edges of column.
template <class T>
void fold(const ConvShape& s, T* x, T* column, int64_t first, int64_t last) {
  const int64_t ow = s.out_width, step = s.g.stride[1];
  const bool shift = unfold_detail::is_shift(s);
  unfold_detail::for_each_tap(s, x, column, (last - first) * ow, [=, &s](T* to, T* from, int64_t kh, int64_t kw) {
    const ConvRange all = s.rows(kh), columns = s.columns(kw);
    const ConvRange rows{std::clamp(all.begin, first, last), std::clamp(all.end, first, last)};
    if (shift) {
      const auto run = unfold_detail::shift_run(s, kh, kw, first, rows);
      unfold_detail::clear_edges(from + (rows.begin - first) * ow, rows.end - rows.begin, ow, columns);
      T* const out = to + run.source;
      for (int64_t p = run.begin; p < run.end; ++p) out[p] += from[p];
      return;
    }
    for (int64_t r = rows.begin; r < rows.end; ++r) {
      const T* const in = from + (r - first) * ow;
      T* const out = to + (r * s.g.stride[0] + s.row_shift(kh)) * s.width + s.column_shift(kw);
      if (columns.begin < columns.end)
        unfold_detail::add_apart(out + columns.begin * step, step, in + columns.begin, columns.end - columns.begin);
    }
  });
}

}  // namespace loom::cpu
