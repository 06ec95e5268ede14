// Reductions. Elements are combined in a tree that depends on shapes and strides only, never on the number of threads:
// lanes within a block, blocks within a chunk (in f64 for floating dtypes), chunks in order.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include <loom/accelerators/cpu/convert.h>
#include <loom/accelerators/cpu/cpu.h>
#include <loom/accelerators/cpu/vector_math.h>

namespace loom {

namespace {

using cpu::block;
using cpu::grain;

constexpr int64_t rows_per_fold = 64;  // rows summed in the compute type before they go to the totals
constexpr int64_t split_target = 64;   // pieces that a reduction over rows is cut into for the sake of threads

template <class T>
using Total = std::conditional_t<std::is_floating_point_v<T>, double, int64_t>;

template <Reduce op, class T>
constexpr T neutral() {
  using Limits = std::numeric_limits<T>;
  if constexpr (op == Reduce::prod || op == Reduce::all)
    return T(1);
  else if constexpr (op == Reduce::max)
    return Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
  else if constexpr (op == Reduce::min)
    return Limits::has_infinity ? Limits::infinity() : Limits::max();
  else
    return T(0);
}

// Sums and products of integers wrap.
template <Reduce op, class T>
T combine(T a, T b) {
  if constexpr (op == Reduce::max)
    return b > a || b != b ? b : a;
  else if constexpr (op == Reduce::min)
    return b < a || b != b ? b : a;
  else if constexpr (op == Reduce::all)
    return static_cast<T>(a & b);
  else if constexpr (op == Reduce::any)
    return static_cast<T>(a | b);
  else if constexpr (std::is_integral_v<T>) {
    const auto u = static_cast<uint64_t>(a), v = static_cast<uint64_t>(b);
    return static_cast<T>(op == Reduce::prod ? u * v : u + v);
  } else {
    return op == Reduce::prod ? a * b : a + b;
  }
}

template <Reduce op, class T>
T lift(T x) {
  if constexpr (op == Reduce::sum_of_squares)
    return x * x;
  else
    return x;
}

// One block of a row: independent lanes hide the latency of addition, and make the sum a shallow tree.
template <Reduce op, class T>
T reduce_block(const T* x, int64_t n) {
  constexpr int64_t lanes = 128 / sizeof(T) < 32 ? 128 / sizeof(T) : 32;
  T sum[lanes];
  for (int64_t l = 0; l < lanes; ++l) sum[l] = neutral<op, T>();
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int64_t l = 0; l < lanes; ++l) sum[l] = combine<op, T>(sum[l], lift<op, T>(x[i + l]));
  for (int64_t l = 0; i + l < n; ++l) sum[l] = combine<op, T>(sum[l], lift<op, T>(x[i + l]));
  for (int64_t width = lanes / 2; width > 0; width /= 2)
    for (int64_t l = 0; l < width; ++l) sum[l] = combine<op, T>(sum[l], sum[l + width]);
  return sum[0];
}

template <class T>
struct Kernels {
  // total = combine(total, all of x).
  void (*row)(Total<T>& total, const T* x, int64_t n);
  // lanes[j] = combine(lanes[j], x[j]).
  void (*column)(T* lanes, const T* x, int64_t n);
  // totals[j] = combine(totals[j], lanes[j]), and the lanes start anew.
  void (*fold)(Total<T>* totals, T* lanes, int64_t n);
  void (*merge)(Total<T>* totals, const Total<T>* others, int64_t n);
  Total<T> total;
  T lane;
};

template <Reduce op, class T>
constexpr Kernels<T> kernels() {
  using A = Total<T>;
  return {[](A& total, const T* x, int64_t n) {
            for (int64_t i = 0; i < n; i += block)
              total = combine<op, A>(total, static_cast<A>(reduce_block<op, T>(x + i, std::min(block, n - i))));
          },
          [](T* __restrict lanes, const T* __restrict x, int64_t n) {
            for (int64_t j = 0; j < n; ++j) lanes[j] = combine<op, T>(lanes[j], lift<op, T>(x[j]));
          },
          [](A* totals, T* lanes, int64_t n) {
            for (int64_t j = 0; j < n; ++j) {
              totals[j] = combine<op, A>(totals[j], static_cast<A>(lanes[j]));
              lanes[j] = neutral<op, T>();
            }
          },
          [](A* totals, const A* others, int64_t n) {
            for (int64_t j = 0; j < n; ++j) totals[j] = combine<op, A>(totals[j], others[j]);
          },
          neutral<op, A>(),
          neutral<op, T>()};
}

template <class T>
Kernels<T> kernels_of(Reduce op) {
  if constexpr (std::is_same_v<T, bool>) {
    return op == Reduce::all ? kernels<Reduce::all, T>() : kernels<Reduce::any, T>();
  } else {
    switch (op) {
      case Reduce::prod:
        return kernels<Reduce::prod, T>();
      case Reduce::max:
        return kernels<Reduce::max, T>();
      case Reduce::min:
        return kernels<Reduce::min, T>();
      case Reduce::sum_of_squares:
        return kernels<Reduce::sum_of_squares, T>();
      default:
        return kernels<Reduce::sum, T>();
    }
  }
}

// The dimensions of x (and y) that stay, or those that go.
View part_of(const View& v, const View& x, const View& y, bool reduced) {
  View part{v.data, v.dtype, v.device, {}, {}};
  for (int i = 0; i < x.rank(); ++i) {
    if ((x.shape[i] != y.shape[i]) != reduced) continue;
    part.shape.push_back(x.shape[i]);
    part.strides.push_back(v.strides[i]);
  }
  return part;
}

template <class T>
class Reduction {
 public:
  Reduction(const Kernels<T>& kernels, const View& y, const View& x, bool mean)
      : k_(kernels),
        y_(y),
        x_(x),
        mean_(mean),
        kept_x_(part_of(x, x, y, false)),
        kept_y_(part_of(y, x, y, false)),
        gone_x_(part_of(x, x, y, true)),
        kept_({&kept_x_, &kept_y_}),
        gone_({&gone_x_}) {}

  void run() const {
    const size_t item = item_size(x_.dtype);
    const bool across = kept_.dense(0, item) && gone_.inner_stride(0) != static_cast<int64_t>(item);
    const bool short_rows = gone_.numel() <= 32;  // many short rows cost less side by side, even if they are gathered
    if ((across || short_rows) && kept_.inner_extent() >= 8)
      reduce_columns();
    else if (gone_.numel() <= grain)
      reduce_rows();
    else
      reduce_long_rows();
  }

 private:
  using A = Total<T>;

  A finish(A total) const {
    if constexpr (std::is_floating_point_v<T>) return mean_ ? total / static_cast<A>(gone_.numel()) : total;
    return total;
  }

  void store(char* y, A total) const {
    const A result = finish(total);
    cpu::store_as(y_.dtype, y, dtype_of<A>(), &result);
  }

  cpu::Reader reader() const { return {x_.dtype, dtype_of<T>()}; }

  // Elements [begin, end) of the reduced dimensions for the output whose first element lies at x.
  A total_of(cpu::Reader& read, const char* x, int64_t begin, int64_t end) const {
    A total = k_.total;
    const int64_t stride = gone_.inner_stride(0), shift = x - gone_.data()[0];
    gone_.walk(begin, end, [&](const auto& p, int64_t length) {
      const int64_t step = read.direct(stride) ? length : block;
      for (int64_t i = 0; i < length; i += step) {
        const int64_t n = std::min(step, length - i);
        k_.row(total, static_cast<const T*>(read(p[0] + shift + i * stride, stride, n)), n);
      }
    });
    return total;
  }

  void reduce_rows() const {
    const int64_t length = gone_.numel();
    parallel_for(
        kept_.numel(), std::max<int64_t>(1, grain / std::max<int64_t>(length, 1)), [&](int64_t begin, int64_t end) {
          cpu::Reader read = reader();
          kept_.walk(begin, end, [&](const auto& p, int64_t n) {
            for (int64_t i = 0; i < n; ++i)
              store(p[1] + i * kept_.inner_stride(1), total_of(read, p[0] + i * kept_.inner_stride(0), 0, length));
          });
        });
  }

  void reduce_long_rows() const {
    const int64_t length = gone_.numel(), chunks = (length + grain - 1) / grain;
    std::vector<A> partial(static_cast<size_t>(kept_.numel() * chunks));
    parallel_for(kept_.numel() * chunks, 1, [&](int64_t begin, int64_t end) {
      cpu::Reader read = reader();
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i % chunks * grain;
        partial[static_cast<size_t>(i)] =
            total_of(read, kept_.at(i / chunks)[0], first, std::min(first + grain, length));
      }
    });
    for (int64_t i = 0; i < kept_.numel(); ++i) {
      A total = k_.total;
      for (int64_t c = 0; c < chunks; ++c) k_.merge(&total, &partial[static_cast<size_t>(i * chunks + c)], 1);
      store(kept_.at(i)[1], total);
    }
  }

  // Totals of `width` neighbouring outputs over rows [begin, end).
  void column_totals(A* totals, cpu::Reader& read, const char* x, int64_t width, int64_t begin, int64_t end) const {
    alignas(64) T lanes[block];
    std::fill_n(lanes, width, k_.lane);
    std::fill_n(totals, width, k_.total);
    int64_t rows = 0;
    gone_.walk(begin, end, [&](const auto& p, int64_t n) {
      for (int64_t r = 0; r < n; ++r) {
        const char* const row = x + (p[0] - gone_.data()[0]) + r * gone_.inner_stride(0);
        k_.column(lanes, static_cast<const T*>(read(row, kept_.inner_stride(0), width)), width);
        if (++rows % rows_per_fold == 0) k_.fold(totals, lanes, width);
      }
    });
    k_.fold(totals, lanes, width);
  }

  // Strips of up to a block of neighbouring outputs; where strips are few, rows are cut into pieces as well.
  void reduce_columns() const {
    const int64_t inner = kept_.inner_extent(), strips_per_run = (inner + block - 1) / block;
    const int64_t strips = kept_.numel() / std::max<int64_t>(inner, 1) * strips_per_run, rows = gone_.numel();
    const int64_t enough = std::max<int64_t>(1, rows * std::min(inner, block) / grain);
    const int64_t pieces = std::clamp<int64_t>(split_target / std::max<int64_t>(strips, 1), 1, enough);
    const int64_t piece = std::max<int64_t>(1, (rows + pieces - 1) / pieces);
    const auto address = [&](int64_t strip) {
      return kept_.at(strip / strips_per_run * inner + strip % strips_per_run * block);
    };
    const auto width = [&](int64_t strip) { return std::min(block, inner - strip % strips_per_run * block); };
    std::vector<A> partial(static_cast<size_t>(pieces > 1 ? strips * pieces * block : 0));
    const int64_t work = std::max<int64_t>(1, piece * std::min(inner, block));
    parallel_for(strips * pieces, std::max<int64_t>(1, grain / work), [&](int64_t begin, int64_t end) {
      cpu::Reader read = reader();
      alignas(64) A own[block];
      for (int64_t i = begin; i < end; ++i) {
        const int64_t strip = i / pieces, first = i % pieces * piece;
        A* const totals = pieces > 1 ? &partial[static_cast<size_t>(i * block)] : own;
        column_totals(totals, read, address(strip)[0], width(strip), first, std::min(first + piece, rows));
        if (pieces == 1) store_strip(address(strip)[1], totals, width(strip));
      }
    });
    for (int64_t strip = 0; pieces > 1 && strip < strips; ++strip) {
      A* const totals = &partial[static_cast<size_t>(strip * pieces * block)];
      for (int64_t c = 1; c < pieces; ++c) k_.merge(totals, totals + c * block, width(strip));
      store_strip(address(strip)[1], totals, width(strip));
    }
  }

  void store_strip(char* y, const A* totals, int64_t width) const {
    cpu::Writer write(y_.dtype, dtype_of<A>());
    A* const out = static_cast<A*>(write.target(y, kept_.inner_stride(1)));
    for (int64_t j = 0; j < width; ++j) out[j] = finish(totals[j]);
    write.commit(y, kept_.inner_stride(1), width);
  }

  Kernels<T> k_;
  const View &y_, &x_;
  bool mean_;
  View kept_x_, kept_y_, gone_x_;
  cpu::Loop<2> kept_;  // x and y, sorted by x: neighbours in x are neighbouring outputs
  cpu::Loop<1> gone_;
};

// Sum of exp(x - high) over a contiguous run.
template <class T>
double sum_of_exponentials(const T* x, int64_t n, T high) {
  double total = 0;
  T e[block];
  for (int64_t i = 0; i < n; i += block) {
    const int64_t m = std::min(block, n - i);
    for (int64_t j = 0; j < m; ++j) {
      if constexpr (std::is_same_v<T, float>)
        e[j] = cpu::vector_math::exp(x[i + j] - high);
      else
        e[j] = std::exp(x[i + j] - high);
    }
    total += static_cast<double>(reduce_block<Reduce::sum, T>(e, m));
  }
  return total;
}

// log(sum(exp(x))), two passes a row: the maximum first.
template <class T>
void logsumexp(const View& y, const View& x) {
  const View kept_x = part_of(x, x, y, false), kept_y = part_of(y, x, y, false), gone_x = part_of(x, x, y, true);
  const cpu::Loop<2> kept({&kept_x, &kept_y});
  const cpu::Loop<1> gone({&gone_x});
  const int64_t stride = gone.inner_stride(0);
  parallel_for(kept.numel(), std::max<int64_t>(1, grain / 4 / std::max<int64_t>(gone.numel(), 1)),
               [&](int64_t begin, int64_t end) {
                 cpu::Reader read(x.dtype, dtype_of<T>());
                 const auto each_run = [&](const char* row, const auto& f) {
                   gone.walk(0, gone.numel(), [&](const auto& p, int64_t length) {
                     for (int64_t i = 0; i < length; i += block) {
                       const int64_t n = std::min(block, length - i);
                       f(static_cast<const T*>(read(row + (p[0] - gone.data()[0]) + i * stride, stride, n)), n);
                     }
                   });
                 };
                 for (int64_t o = begin; o < end; ++o) {
                   const auto at = kept.at(o);
                   T high = neutral<Reduce::max, T>();
                   each_run(at[0], [&](const T* run, int64_t n) {
                     high = combine<Reduce::max, T>(high, reduce_block<Reduce::max, T>(run, n));
                   });
                   double result = static_cast<double>(high);
                   if (high - high == T(0)) {  // else infinite or NaN, and the result is that
                     double total = 0;
                     each_run(at[0], [&](const T* run, int64_t n) { total += sum_of_exponentials(run, n, high); });
                     result += std::log(total);
                   }
                   cpu::store_as(y.dtype, at[1], f64, &result);
                 }
               });
}

}  // namespace

void Cpu::reduce(Reduce op, const View& y, const View& x) {
  const DType compute = cpu::compute_dtype(x.dtype);
  const bool mean = op == Reduce::mean;
  if (mean || op == Reduce::logsumexp)
    check(is_floating(x.dtype), mean ? "mean" : "logsumexp", ": expects a floating dtype, got ", x.dtype);
  if (op == Reduce::logsumexp) return compute == f64 ? logsumexp<double>(y, x) : logsumexp<float>(y, x);
  if (op == Reduce::all || op == Reduce::any) return Reduction<bool>(kernels_of<bool>(op), y, x, false).run();
  if (is_integral(compute)) return Reduction<int64_t>(kernels_of<int64_t>(op), y, x, false).run();
  if (compute == f64) return Reduction<double>(kernels_of<double>(op), y, x, mean).run();
  Reduction<float>(kernels_of<float>(op), y, x, mean).run();
}

}  // namespace loom
