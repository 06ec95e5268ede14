// Reductions along one dimension that know where they are: arg_reduce and cumulative.
#include <algorithm>
#include <bit>
#include <vector>

#include <loom/accelerators/cpu/convert.h>
#include <loom/accelerators/cpu/cpu.h>
#include <loom/accelerators/cpu/reduce.h>
#include <loom/accelerators/cpu/set_bits.h>
#include <loom/accelerators/cpu/vector_reduce.h>

namespace loom {

namespace {

using cpu::block;
using cpu::grain;

constexpr int64_t stretch = 4096;  // elements of a line that are looked through at a time: L1 still has them then

// A view without dimension dim: the address of each of its elements starts a line along dim.
View without(const View& v, int dim) {
  View rest = v;
  rest.shape.erase(dim);
  rest.strides.erase(dim);
  return rest;
}

int64_t byte_stride(const View& v, int dim) { return v.strides[dim] * static_cast<int64_t>(item_size(v.dtype)); }

// A line element wins when it is better, or the first NaN.
template <ArgReduce op, class T>
bool wins(T x, T best) {
  return (op == ArgReduce::max ? x > best : x < best) || (x != x && best == best);
}

// The best of a run, in vectors.
template <ArgReduce op, class T>
T best_of(const T* x, int64_t n) {
  constexpr Reduce reduce = op == ArgReduce::max ? Reduce::max : Reduce::min;
  if constexpr (std::is_floating_point_v<T>) {
    double best = cpu::neutral<reduce, double>();
    cpu::vector_row<reduce>(best, x, n);
    return static_cast<T>(best);
  } else {
    return cpu::reduce_block<reduce, T>(x, n);
  }
}

// Where the best of a run stands first, or the first NaN.
template <class T>
int64_t position_of(T best, const T* x, int64_t n) {
  int64_t i = 0;
  if (best != best) {
    while (x[i] == x[i]) ++i;
    return i;
  }
  if constexpr (std::is_floating_point_v<T>) {
    constexpr int64_t width = cpu::lanes<T>, ways = 4;
    const cpu::Vec<T> wanted = cpu::broadcast(best);
    const auto equal = [&](int64_t at) { return cpu::equal_bits<T>(cpu::load(x + at), wanted); };
    while (i + ways * width <= n && (equal(i) | equal(i + width) | equal(i + 2 * width) | equal(i + 3 * width)) == 0)
      i += ways * width;
    while (i + width <= n && equal(i) == 0) i += width;
    if (i + width <= n) return i + std::countr_zero(equal(i));
  }
  while (x[i] != best) ++i;
  return i;
}

// Lines side by side, for x that is dense across them: `width` winners at a time.
template <ArgReduce op, class T>
void winners_of(T* best, int64_t* index, const T* x, int64_t width, int64_t position) {
  for (int64_t j = 0; j < width; ++j) {
    const bool better = position == 0 || wins<op, T>(x[j], best[j]);
    best[j] = better ? x[j] : best[j];
    index[j] = better ? position : index[j];
  }
}

template <ArgReduce op, class T>
void arg_reduce(const View& values, const View& index, const View& x, int dim) {
  const View line_starts = without(x, dim), value_out = without(values, dim), index_out = without(index, dim);
  const cpu::Loop<3> loop({&line_starts, &value_out, &index_out});
  const int64_t length = x.shape[dim], stride = byte_stride(x, dim);
  const int64_t item = static_cast<int64_t>(item_size(x.dtype));
  const bool side_by_side = loop.dense(0, item_size(x.dtype)) && loop.inner_extent() >= 8;
  const cpu::Convert convert = cpu::converter(x.dtype, dtype_of<T>());
  parallel_for(loop.numel(), std::max<int64_t>(1, grain / length), [&](int64_t begin, int64_t end) {
    cpu::Reader read(x.dtype, dtype_of<T>());
    alignas(64) T best[block];
    alignas(64) int64_t where[block];
    const auto one_line = [&](const char* line, int64_t j) {
      const int64_t step = read.direct(stride) ? stretch : block;
      int64_t first = 0;  // of the run that has the best
      const auto run = [&](int64_t i, int64_t n) { return static_cast<const T*>(read(line + i * stride, stride, n)); };
      for (int64_t i = 0; i < length; i += step) {
        const int64_t n = std::min(step, length - i);
        const T candidate = best_of<op, T>(run(i, n), n);
        if (i > 0 && !wins<op, T>(candidate, best[j])) continue;
        best[j] = candidate;
        first = i;
      }
      const int64_t n = std::min(step, length - first);
      const T* const x_run = run(first, n);
      const int64_t position = position_of(best[j], x_run, n);
      best[j] = x_run[position];
      where[j] = first + position;
    };
    loop.walk(begin, end, [&](const auto& p, int64_t lines) {
      for (int64_t first = 0; first < lines; first += block) {
        const int64_t width = std::min(block, lines - first);
        const char* const start = p[0] + first * loop.inner_stride(0);
        for (int64_t i = 0; side_by_side && i < length; ++i)
          winners_of<op, T>(best, where, static_cast<const T*>(read(start + i * stride, item, width)), width, i);
        for (int64_t j = 0; !side_by_side && j < width; ++j) one_line(start + j * loop.inner_stride(0), j);
        for (int64_t j = 0; j < width; ++j) {
          convert(p[1] + (first + j) * loop.inner_stride(1), best + j, 1);
          *reinterpret_cast<int64_t*>(p[2] + (first + j) * loop.inner_stride(2)) = where[j];
        }
      }
    });
  });
}

// f32 (and 16 bits) run up in f64, integers in i64.
template <Cumulative op, class T>
T accumulate(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    const auto u = static_cast<uint64_t>(a), v = static_cast<uint64_t>(b);
    return static_cast<T>(op == Cumulative::sum ? u + v : u * v);
  } else {
    return op == Cumulative::sum ? a + b : a * b;
  }
}

// Runs up a run and returns where `total` has come to. Sums go in four chains at once, which hides the latency of each;
// products do not, for one may overflow behind a zero.
template <Cumulative op, class T>
T run_up(T* __restrict y, const T* __restrict x, int64_t n, T total) {
  constexpr int64_t chains = 4;
  const int64_t part = op == Cumulative::sum ? n / chains : 0;
  const T nothing = op == Cumulative::sum ? T(0) : T(1);
  T a = total, b = nothing, c = nothing, d = nothing;
  for (int64_t i = 0; i < part; ++i) {
    y[i] = a = accumulate<op, T>(a, x[i]);
    y[part + i] = b = accumulate<op, T>(b, x[part + i]);
    y[2 * part + i] = c = accumulate<op, T>(c, x[2 * part + i]);
    y[3 * part + i] = d = accumulate<op, T>(d, x[3 * part + i]);
  }
  for (int64_t k = 1; k < chains; ++k) {
    const T before = k == 1 ? a : y[k * part - 1];
    for (int64_t i = k * part; part > 0 && i < (k + 1) * part; ++i) y[i] = accumulate<op, T>(before, y[i]);
  }
  total = part > 0 ? y[chains * part - 1] : total;
  for (int64_t i = chains * part; i < n; ++i) y[i] = total = accumulate<op, T>(total, x[i]);
  return total;
}

template <Cumulative op, class T>
void cumulative(const View& y, const View& x, int dim) {
  const View x_starts = without(x, dim), y_starts = without(y, dim);
  const cpu::Loop<2> loop({&x_starts, &y_starts});
  const int64_t length = x.shape[dim], xs = byte_stride(x, dim), ys = byte_stride(y, dim);
  const int64_t x_across = loop.inner_stride(0), y_across = loop.inner_stride(1);
  const bool side_by_side = loop.dense(0, item_size(x.dtype)) && loop.inner_extent() >= 8;
  parallel_for(loop.numel(), std::max<int64_t>(1, grain / std::max<int64_t>(length, 1)),
               [&](int64_t begin, int64_t end) {
                 cpu::Reader read(x.dtype, dtype_of<T>());
                 cpu::Writer write(y.dtype, dtype_of<T>());
                 const auto one_line = [&](char* x_line, char* y_line) {
                   T sum = op == Cumulative::sum ? T(0) : T(1);
                   for (int64_t i = 0; i < length; i += block) {
                     const int64_t n = std::min(block, length - i);
                     const T* const in = static_cast<const T*>(read(x_line + i * xs, xs, n));
                     T* const out = static_cast<T*>(write.target(y_line + i * ys, ys));
                     sum = run_up<op, T>(out, in, n, sum);
                     write.commit(y_line + i * ys, ys, n);
                   }
                 };
                 const auto lines_together = [&](char* x_line, char* y_line, int64_t width) {
                   alignas(64) T sum[block];
                   std::fill_n(sum, width, op == Cumulative::sum ? T(0) : T(1));
                   for (int64_t i = 0; i < length; ++i) {
                     const T* const in = static_cast<const T*>(read(x_line + i * xs, x_across, width));
                     T* const out = static_cast<T*>(write.target(y_line + i * ys, y_across));
                     for (int64_t j = 0; j < width; ++j) out[j] = sum[j] = accumulate<op, T>(sum[j], in[j]);
                     write.commit(y_line + i * ys, y_across, width);
                   }
                 };
                 loop.walk(begin, end, [&](const auto& p, int64_t lines) {
                   const int64_t step = side_by_side ? block : 1;
                   for (int64_t j = 0; j < lines; j += step) {
                     if (side_by_side)
                       lines_together(p[0] + j * x_across, p[1] + j * y_across, std::min(step, lines - j));
                     else
                       one_line(p[0] + j * x_across, p[1] + j * y_across);
                   }
                 });
               });
}

}  // namespace

void Cpu::arg_reduce(ArgReduce op, const View& values, const View& index, const View& x, int dim) {
  const auto run = [&]<class T>() {
    if (op == ArgReduce::max)
      loom::arg_reduce<ArgReduce::max, T>(values, index, x, dim);
    else
      loom::arg_reduce<ArgReduce::min, T>(values, index, x, dim);
  };
  if (is_integral(x.dtype))
    run.operator()<int64_t>();
  else if (x.dtype == f64)
    run.operator()<double>();
  else
    run.operator()<float>();
}

void Cpu::cumulative(Cumulative op, const View& y, const View& x, int dim) {
  const auto run = [&]<class T>() {
    if (op == Cumulative::sum)
      loom::cumulative<Cumulative::sum, T>(y, x, dim);
    else
      loom::cumulative<Cumulative::product, T>(y, x, dim);
  };
  if (is_integral(x.dtype))
    run.operator()<int64_t>();
  else
    run.operator()<double>();
}

}  // namespace loom
