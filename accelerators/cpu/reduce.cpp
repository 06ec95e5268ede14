// Reductions. Elements are combined in a tree that depends on shapes and strides only, never on the number of threads:
// lanes within a piece, pieces within a chunk or a run (in f64 for floating dtypes), these in order.
#include <loom/accelerators/cpu/reduce_kernels.h>

#include <algorithm>

#include <loom/accelerators/cpu/convert.h>
#include <loom/accelerators/cpu/cpu.h>
#include <loom/accelerators/cpu/scratch.h>

namespace loom {

namespace {

using cpu::block;
using cpu::grain;
using cpu::Kernels;
using cpu::kernels_of;
using cpu::part_of;
using cpu::Total;

constexpr int64_t rows_per_fold = 64;  // rows summed in the compute type before they go to the totals
constexpr int64_t split_target = 64;   // pieces that a reduction over rows is cut into for the sake of threads
constexpr int64_t strip_width = 2048;  // neighbouring outputs of a reduction over rows that are worked on together
constexpr int64_t far_bytes = int64_t{4} << 20;  // inputs from here on come from beyond a core's own caches
constexpr int64_t narrow = 64;                   // rows shorter than this are taken several at a time, if they adjoin

template <class S>
class Reduction {
 public:
  Reduction(const Kernels<S>& kernels, const View& y, const View& x, bool mean)
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
    // Many short rows that no kernel takes as they are cost less side by side, even if they are gathered.
    const bool ready = std::is_floating_point_v<T> && gone_.rank() == 1 && reader().direct(gone_.inner_stride(0));
    const bool short_rows = gone_.numel() <= 32 && !ready;
    if ((across || short_rows) && kept_.inner_extent() >= 8)
      reduce_columns();
    else if (in_long_runs())
      reduce_runs();
    else if (gone_.numel() <= grain)
      reduce_rows();
    else
      reduce_long_rows();
  }

 private:
  using T = compute_type<S>;
  using A = Total<T>;

  A finish(A total) const {
    if constexpr (std::is_floating_point_v<T>) return mean_ ? total / static_cast<A>(gone_.numel()) : total;
    return total;
  }

  cpu::Reader reader() const { return {x_.dtype, dtype_of<S>()}; }

  // Elements [begin, end) of the reduced dimensions for the output whose first element lies at x.
  A total_of(cpu::Reader& read, const char* x, int64_t begin, int64_t end) const {
    A total = k_.total;
    const int64_t stride = gone_.inner_stride(0), shift = x - gone_.data()[0];
    const auto add_run = [&](const char* run, int64_t length) {
      const int64_t step = read.direct(stride) ? length : block;
      for (int64_t i = 0; i < length; i += step) {
        const int64_t n = std::min(step, length - i);
        k_.row(total, static_cast<const S*>(read(run + i * stride, stride, n)), n);
      }
    };
    if (gone_.rank() == 1 && begin == 0)
      add_run(x, end);
    else
      gone_.walk(begin, end, [&](const auto& p, int64_t length) { add_run(p[0] + shift, length); });
    return total;
  }

  // The same of all reduced dimensions where these are runs of elements that lie ready.
  A total_of_runs(const char* x) const {
    A total = k_.total;
    k_.all_rows(total, reinterpret_cast<const S*>(x), gone_.stride(0, 0) / static_cast<int64_t>(sizeof(S)),
                gone_.extent(0), gone_.inner_extent());
    return total;
  }

  void reduce_rows() const {
    constexpr auto item = static_cast<int64_t>(sizeof(S));
    const int64_t length = gone_.numel();
    const int64_t along = length == 0 ? 0 : kept_.inner_stride(0);  // nothing to walk over: x may be null
    parallel_for(kept_.numel(), std::max<int64_t>(1, grain / std::max<int64_t>(length, 1)),
                 [&](int64_t begin, int64_t end) {
                   cpu::Reader read = reader();
                   const bool ready = length > 0 && read.direct(gone_.inner_stride(0));
                   A totals[block];
                   kept_.walk(begin, end, [&](const auto& p, int64_t n) {
                     for (int64_t first = 0; first < n; first += block) {
                       const int64_t count = std::min(block, n - first);
                       const char* const x = p[0] + first * along;
                       if (ready && gone_.rank() == 1)
                         k_.rows(totals, reinterpret_cast<const S*>(x), along / item, count, length);
                       else
                         for (int64_t i = 0; i < count; ++i)
                           totals[i] = ready && gone_.rank() == 2 ? total_of_runs(x + i * along)
                                                                  : total_of(read, x + i * along, 0, length);
                       store_strip(p[1] + first * kept_.inner_stride(1), totals, count);
                     }
                   });
                 });
  }

  // The outputs lie between long runs of what is reduced, as the channels of images do.
  bool in_long_runs() const {
    return gone_.rank() == 2 && kept_.rank() == 1 && gone_.numel() > 0 && gone_.inner_extent() >= block &&
           reader().direct(gone_.inner_stride(0)) && kept_.inner_stride(0) > 0 &&
           kept_.inner_stride(0) < gone_.stride(0, 0);
  }

  // Runs in the order in which memory holds them, then those of each output in order.
  void reduce_runs() const {
    const int64_t outputs = kept_.numel(), runs = gone_.extent(0), length = gone_.inner_extent();
    const int64_t along = kept_.inner_stride(0);
    const cpu::Scratch<A> totals(outputs * runs);
    parallel_for(outputs * runs, std::max<int64_t>(1, grain / length), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end;) {
        const int64_t first = i % outputs, count = std::min(outputs - first, end - i);
        const char* const x = kept_.data()[0] + i / outputs * gone_.stride(0, 0) + first * along;
        k_.rows(totals.data() + i, reinterpret_cast<const S*>(x), along / static_cast<int64_t>(sizeof(S)), count,
                length);
        i += count;
      }
    });
    for (int64_t r = 1; r < runs; ++r) k_.merge(totals.data(), totals.data() + r * outputs, outputs);
    store_strip(kept_.data()[1], totals.data(), outputs);
  }

  void reduce_long_rows() const {
    const int64_t length = gone_.numel(), chunks = (length + grain - 1) / grain;
    const cpu::Scratch<A> partial(kept_.numel() * chunks);
    parallel_for(kept_.numel() * chunks, 1, [&](int64_t begin, int64_t end) {
      cpu::Reader read = reader();
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i % chunks * grain;
        partial.data()[i] = total_of(read, kept_.at(i / chunks)[0], first, std::min(first + grain, length));
      }
    });
    for (int64_t i = 0; i < kept_.numel(); ++i) {
      A total = k_.total;
      for (int64_t c = 0; c < chunks; ++c) k_.merge(&total, partial.data() + i * chunks + c, 1);
      store_strip(kept_.at(i)[1], &total, 1);
    }
  }

  // Totals of `width` neighbouring outputs over rows [begin, end). Rows are taken `together` where they adjoin.
  void column_totals(A* totals, cpu::Reader& read, const char* x, int64_t width, int64_t begin, int64_t end) const {
    constexpr auto item = static_cast<int64_t>(sizeof(S));
    const int64_t stride = gone_.inner_stride(0), across = kept_.inner_stride(0);
    const bool direct = read.direct(across), far = x_.numel() * item >= far_bytes;
    const int64_t together = direct && stride == width * item && width < narrow ? block / width : 1;
    alignas(64) T lanes[strip_width];
    std::fill_n(lanes, width * together, k_.lane);
    std::fill_n(totals, width, k_.total);
    const auto fold = [&] {
      for (int64_t i = 0; i < together; ++i) k_.fold(totals, lanes + i * width, width);
    };
    int64_t added = 0;
    gone_.walk(begin, end, [&](const auto& p, int64_t n) {
      for (int64_t r = 0; r < n;) {
        const char* const row = x + (p[0] - gone_.data()[0]) + r * stride;
        const int64_t wide = std::min(n - r, together), lines = (n - r) / wide;
        const int64_t count = direct ? std::min(lines, rows_per_fold - added) : 1;
        k_.columns(lanes, static_cast<const S*>(read(row, across, width)), wide * stride / item, count, wide * width,
                   far);
        r += wide * count;
        added += count;
        if (added == rows_per_fold) {
          fold();
          added = 0;
        }
      }
    });
    fold();
  }

  // Strips of neighbouring outputs; where strips are few, rows are cut into pieces as well.
  void reduce_columns() const {
    const int64_t inner = kept_.inner_extent(), strip = reader().direct(kept_.inner_stride(0)) ? strip_width : block;
    const int64_t strips_per_run = (inner + strip - 1) / strip, widest = std::min(inner, strip);
    const int64_t strips = kept_.numel() / std::max<int64_t>(inner, 1) * strips_per_run, rows = gone_.numel();
    const int64_t enough = std::max<int64_t>(1, rows * widest / grain);
    const int64_t pieces = std::clamp<int64_t>(split_target / std::max<int64_t>(strips, 1), 1, enough);
    const int64_t piece = std::max<int64_t>(1, (rows + pieces - 1) / pieces);
    const auto address = [&](int64_t i) { return kept_.at(i / strips_per_run * inner + i % strips_per_run * strip); };
    const auto width = [&](int64_t i) { return std::min(strip, inner - i % strips_per_run * strip); };
    const cpu::Scratch<A> partial(pieces > 1 ? strips * pieces * widest : 0);
    const int64_t work = std::max<int64_t>(1, piece * widest);
    parallel_for(strips * pieces, std::max<int64_t>(1, grain / work), [&](int64_t begin, int64_t end) {
      cpu::Reader read = reader();
      alignas(64) A own[strip_width];
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = i / pieces, first = i % pieces * piece;
        A* const totals = pieces > 1 ? partial.data() + i * widest : own;
        column_totals(totals, read, address(at)[0], width(at), first, std::min(first + piece, rows));
        if (pieces == 1) store_strip(address(at)[1], totals, width(at));
      }
    });
    for (int64_t i = 0; pieces > 1 && i < strips; ++i) {
      A* const totals = partial.data() + i * pieces * widest;
      for (int64_t c = 1; c < pieces; ++c) k_.merge(totals, totals + c * widest, width(i));
      store_strip(address(i)[1], totals, width(i));
    }
  }

  void store_strip(char* y, const A* totals, int64_t width) const {
    cpu::Writer write(y_.dtype, dtype_of<A>());
    const int64_t stride = kept_.inner_stride(1);
    for (int64_t first = 0; first < width; first += block, y += block * stride) {
      const int64_t n = std::min(block, width - first);
      A* const out = static_cast<A*>(write.target(y, stride));
      for (int64_t j = 0; j < n; ++j) out[j] = finish(totals[first + j]);
      write.commit(y, stride, n);
    }
  }

  Kernels<S> k_;
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
  if (x.dtype == f16) return Reduction<Half>(kernels_of<Half>(op), y, x, mean).run();
  if (x.dtype == bf16) return Reduction<BFloat16>(kernels_of<BFloat16>(op), y, x, mean).run();
  Reduction<float>(kernels_of<float>(op), y, x, mean).run();
}

}  // namespace loom
