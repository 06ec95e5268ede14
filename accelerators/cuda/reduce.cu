// Reductions over any dimensions. What is reduced is cut into parts where there are few outputs; a second launch then
// joins these in their order. Along a row a group of threads works together; across rows, threads stand side by side.
#include <vector>

#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/reduce_kernels.h>
#include <loom/accelerators/cuda/scratch.h>

namespace loom {

namespace {

using cuda::AnyLoader;
using cuda::finished_together;
using cuda::Fold;
using cuda::PackLoader;
using cuda::Piece;
using cuda::Target;
using cuda::threads_per_block;
using cuda::Walk;
using cuda::warp_size;

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

// F: a fold; S: the dtype of x where it may be read in packs, or void.
template <class F, class S>
class Reduction {
 public:
  Reduction(cuda::Gpu& gpu, const View& y, const View& x)
      : gpu_(gpu),
        y_(y),
        x_(x),
        kept_x_(part_of(x, x, y, false)),
        kept_y_(part_of(y, x, y, false)),
        gone_x_(part_of(x, x, y, true)),
        kept_({&kept_x_, &kept_y_}),
        gone_({&gone_x_}) {}

  void run() {
    if (kept_.numel() == 0) return;
    cuda::for_each_walk<1>({&gone_x_}, cpu::Order::any, [&](const Walk<1>& walk, int64_t) { walks_.push_back(walk); });
    plan();
    const int64_t parts = parts_per_walk_ * static_cast<int64_t>(walks_.size());
    const cuda::Scratch memory(gpu_, parts == 1 ? 0 : static_cast<size_t>(parts * kept_.numel()) * sizeof(State));
    const Target<F> target{memory.as<State>(), kept_.numel(), y_.dtype, static_cast<typename F::T>(gone_.numel())};
    cuda::for_each_walk<2>({&kept_x_, &kept_y_}, cpu::Order::any, [&](const Walk<2>& kept, int64_t first) {
      for (size_t i = 0; i < walks_.size(); ++i) {
        Piece piece{kept, walks_[i], first, static_cast<int64_t>(i) * parts_per_walk_};
        piece.kept.data[0] += walks_[i].data[0] - x_.as<char>();
        start(piece, target);
      }
      if (parts != 1)
        cuda::launch(gpu_, name, &cuda::finish_kernel<F>, cuda::blocks_for_rows(kept.numel, finished_together),
                     threads_per_block, 0, kept, first, parts, target);
    });
  }

 private:
  using State = typename F::State;
  using Any = AnyLoader<typename F::T>;
  static constexpr const char* name = "reduce";
  static constexpr bool typed = !std::is_void_v<S>;
  enum class Way : uint8_t { row, along, along_packs, across, across_packs };

  bool small() const {
    constexpr int64_t most = std::numeric_limits<int32_t>::max();
    return gone_.numel() <= most && kept_.numel() <= most;
  }
  // Whether packs may be read: dimensions other than the dense one begin on 16-byte boundaries.
  bool packs(bool of_gone, int64_t dense_extent, int64_t width) const {
    const int last_kept = kept_.rank() - (of_gone ? 0 : 1), last_gone = gone_.rank() - (of_gone ? 1 : 0);
    bool aligned = small() && dense_extent % width == 0 && cuda::is_aligned(x_.data);
    for (int i = 0; i < last_kept; ++i) aligned = aligned && kept_.stride(0, i) % 16 == 0;
    for (int i = 0; i < last_gone; ++i) aligned = aligned && gone_.stride(0, i) % 16 == 0;
    return aligned;
  }
  Way way() const {
    const auto item = static_cast<int64_t>(item_size(x_.dtype)), width = 16 / item;
    const bool dense = gone_.inner_stride(0) == item, side_by_side = kept_.inner_stride(0) == item;
    if (dense && typed && gone_.rank() == 1) return Way::row;
    if (dense) return typed && packs(true, gone_.inner_extent(), width) ? Way::along_packs : Way::along;
    if (!side_by_side || gone_.numel() == 1) return Way::along;
    return typed && packs(false, kept_.inner_extent(), width) ? Way::across_packs : Way::across;
  }

  // Threads of an output, or outputs side by side; and how many parts keep the machine busy.
  void plan() {
    way_ = way();
    const int64_t outputs = kept_.numel(), processors = gpu_.multiprocessors();
    const int64_t width = way_ == Way::row || way_ == Way::along_packs || way_ == Way::across_packs
                              ? 16 / static_cast<int64_t>(item_size(x_.dtype))
                              : 1;
    int64_t blocks = 1, most = 1;
    if (way_ == Way::across || way_ == Way::across_packs) {
      const int64_t units = (outputs + width - 1) / width;
      for (group_ = 1; group_ < warp_size && group_ < units;) group_ *= 2;
      blocks = (units + group_ - 1) / group_;
      most = gone_.numel() / (threads_per_block / group_ * 8);
    } else {
      const int64_t units = (gone_.numel() + width - 1) / width;
      for (group_ = 1; group_ < warp_size && group_ * 4 < units;) group_ *= 2;
      if (units > 1024 || (units >= 128 && outputs < processors * 64)) group_ = threads_per_block;
      blocks = (outputs * group_ + threads_per_block - 1) / threads_per_block;
      most = group_ == threads_per_block ? units / (threads_per_block * 4) : 1;
    }
    parts_per_walk_ = std::clamp<int64_t>(processors * 8 / blocks, 1, std::max<int64_t>(most, 1));
  }

  void start(Piece piece, const Target<F>& target) const {
    const Any any{x_.dtype};
    const auto grid = [&](int64_t together) {
      return dim3(cuda::blocks_for_rows(piece.kept.numel, together), static_cast<unsigned>(parts_per_walk_));
    };
    if (way_ == Way::along)
      return go(&cuda::along_kernel<F, Any>, grid(threads_per_block / group_), piece, any, target);
    if (way_ == Way::across) return go(&cuda::across_kernel<F, Any>, grid(group_), piece, any, target);
    if constexpr (typed) {
      using Packs = PackLoader<S>;
      if (way_ == Way::row)
        return cuda::launch(gpu_, name, &cuda::row_kernel<F, S>, grid(threads_per_block / group_), threads_per_block, 0,
                            piece, target, group_);
      if (way_ == Way::across_packs)
        return go(&cuda::across_kernel<F, Packs>, grid(int64_t{group_} * Packs::width), piece, Packs(), target);
      Walk<1>& gone = piece.gone;  // counted in packs
      gone.numel /= Packs::width;
      gone.extents[0] /= Packs::width;
      gone.dividers[0] = cuda::Divider(gone.extents[0]);
      gone.strides[0][0] *= Packs::width;
      go(&cuda::along_kernel<F, Packs>, grid(threads_per_block / group_), piece, Packs(), target);
    }
  }
  template <class Loader>
  void go(void (*kernel)(Piece, Loader, Target<F>, int), dim3 blocks, const Piece& piece, const Loader& loader,
          const Target<F>& target) const {
    cuda::launch(gpu_, name, kernel, blocks, threads_per_block, 0, piece, loader, target, group_);
  }

  cuda::Gpu& gpu_;
  const View &y_, &x_;
  View kept_x_, kept_y_, gone_x_;
  cpu::Loop<2> kept_;  // x and y, sorted by x: neighbours in x are neighbouring outputs
  cpu::Loop<1> gone_;
  std::vector<Walk<1>> walks_;
  Way way_ = Way::along;
  int group_ = 1;
  int64_t parts_per_walk_ = 1;
};

template <class C, class F>
void with_fold(Reduce op, const F& f) {
  const auto is = [&]<Reduce each>() {
    if (op != each) return false;
    f.template operator()<Fold<each, C>>();
    return true;
  };
  if constexpr (std::is_floating_point_v<C>)
    if (is.template operator()<Reduce::mean>() || is.template operator()<Reduce::logsumexp>()) return;
  (void)(is.template operator()<Reduce::sum>() || is.template operator()<Reduce::prod>() ||
         is.template operator()<Reduce::max>() || is.template operator()<Reduce::min>() ||
         is.template operator()<Reduce::sum_of_squares>());
}

}  // namespace

void Cuda::reduce(Reduce op, const View& y, const View& x) {
  if (op == Reduce::mean || op == Reduce::logsumexp)
    check(is_floating(x.dtype), op == Reduce::mean ? "mean" : "logsumexp", ": expects a floating dtype, got ", x.dtype);
  if (op == Reduce::all || op == Reduce::any)
    return cuda::with_compute(cuda::compute_of(x.dtype), [&]<class C> {
      if (op == Reduce::all)
        Reduction<Fold<Reduce::all, C>, void>(gpu_, y, x).run();
      else
        Reduction<Fold<Reduce::any, C>, void>(gpu_, y, x).run();
    });
  if (is_integral(x.dtype)) return with_fold<int64_t>(op, [&]<class F> { Reduction<F, void>(gpu_, y, x).run(); });
  with_floating("reduce", x.dtype,
                [&]<class S> { with_fold<compute_type<S>>(op, [&]<class F> { Reduction<F, S>(gpu_, y, x).run(); }); });
}

}  // namespace loom
