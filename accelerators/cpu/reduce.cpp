// Reductions. Elements are combined in a tree that depends on shapes and strides only, never on the number of threads:
// lanes within a block, blocks within a chunk (in f64 for floating dtypes), chunks in order.
#include <loom/accelerators/cpu/reduce.h>

#include <algorithm>
#include <vector>

#include <loom/accelerators/cpu/convert.h>
#include <loom/accelerators/cpu/cpu.h>

namespace loom {

namespace {

using cpu::block;
using cpu::combine;
using cpu::grain;
using cpu::lift;
using cpu::neutral;
using cpu::part_of;
using cpu::reduce_block;

constexpr int64_t rows_per_fold = 64;  // rows summed in the compute type before they go to the totals
constexpr int64_t split_target = 64;   // pieces that a reduction over rows is cut into for the sake of threads

template <class T>
using Total = std::conditional_t<std::is_floating_point_v<T>, double, int64_t>;

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
            constexpr int64_t piece = op == Reduce::sum || op == Reduce::prod ? block : 8 * block;
            for (int64_t i = 0; i < n; i += piece)
              total = combine<op, A>(total, static_cast<A>(reduce_block<op, T>(x + i, std::min(piece, n - i))));
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
    const int64_t along = length == 0 ? 0 : kept_.inner_stride(0);  // nothing to walk over: x may be null
    parallel_for(kept_.numel(), std::max<int64_t>(1, grain / std::max<int64_t>(length, 1)),
                 [&](int64_t begin, int64_t end) {
                   cpu::Reader read = reader();
                   kept_.walk(begin, end, [&](const auto& p, int64_t n) {
                     for (int64_t i = 0; i < n; ++i)
                       store(p[1] + i * kept_.inner_stride(1), total_of(read, p[0] + i * along, 0, length));
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

}  // namespace

void Cpu::reduce(Reduce op, const View& y, const View& x) {
  const DType compute = cpu::compute_dtype(x.dtype);
  const bool mean = op == Reduce::mean;
  if (mean || op == Reduce::logsumexp)
    check(is_floating(x.dtype), mean ? "mean" : "logsumexp", ": expects a floating dtype, got ", x.dtype);
  if (op == Reduce::logsumexp) return cpu::logsumexp(y, x);
  if (op == Reduce::all || op == Reduce::any) return Reduction<bool>(kernels_of<bool>(op), y, x, false).run();
  if (is_integral(compute)) return Reduction<int64_t>(kernels_of<int64_t>(op), y, x, false).run();
  if (compute == f64) return Reduction<double>(kernels_of<double>(op), y, x, mean).run();
  Reduction<float>(kernels_of<float>(op), y, x, mean).run();
}

}  // namespace loom
