// Convolution: which kernel a shape takes, and the general one, as matrix products: each image (or a tile of its output
// rows) is unfolded into columns, one per output pixel. Threads take images, so a thread's columns stay in its cache.
#include <algorithm>
#include <type_traits>

#include <loom/accelerators/cpu/convert.h>
#include <loom/accelerators/cpu/direct_conv.h>
#include <loom/accelerators/cpu/gemm_args.h>
#include <loom/accelerators/cpu/micro_kernel.h>
#include <loom/accelerators/cpu/pointwise_conv.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/cpu/unfold.h>
#include <loom/accelerators/cpu/winograd.h>
#include <loom/accelerators/onednn.h>
#include <loom/accelerators/threads.h>

namespace loom {
using namespace cpu;

namespace {

// How an image's output rows are cut. Columns of a whole image are kept up to 1 MB; beyond, tiles of about 0.4 MB stay
// in the second-level cache, but tiles of a few rows cost more than they save. With fewer images than threads, tiles
// are also what gives every thread something to do.
struct Tiles {
  int64_t rows, count;
  Tiles(const ConvShape& s, size_t item, bool spread) {
    const int64_t row_bytes = std::max<int64_t>(1, s.taps() * s.out_width * static_cast<int64_t>(item));
    rows = s.out_height;
    if (row_bytes * rows > 1'000'000 && !s.pointwise()) rows = std::max<int64_t>(4, 400'000 / row_bytes);
    if (spread && s.images > 0 && s.images < num_threads()) {
      const int64_t wanted = (num_threads() + s.images - 1) / s.images;
      rows = std::min(rows, std::max<int64_t>(4, (s.out_height + wanted - 1) / wanted));
    }
    rows = std::clamp<int64_t>(rows, 1, std::max<int64_t>(1, s.out_height));
    const auto last = [&] { return s.out_height - (ceil_div(s.out_height, rows) - 1) * rows; };
    while (rows < s.out_height && last() * s.out_width < 4) ++rows;  // products of vectors add in another order
    count = ceil_div(s.out_height, rows);
  }
};

// One tile of one image.
struct Tile {
  int64_t image, first, last;  // output rows
  Tile(const Tiles& tiles, const ConvShape& s, int64_t item)
      : image(item / tiles.count),
        first(item % tiles.count * tiles.rows),
        last(std::min(s.out_height, first + tiles.rows)) {}
};

// Products of E: float, double, or pairs of bf16, whose columns are bf16 too and whose sums are f32.
template <class E>
class Conv {
  using T = SumOf<E>;
  using S = std::conditional_t<is_pair<E>, BFloat16, E>;

 public:
  Conv(const ConvShape& shape, bool spread) : s(shape), tiles(shape, sizeof(S), spread) {}

  void forward(S* y, const S* x, const S* w, const T* bias) const {
    parallel_for(s.images * tiles.count, grain(), [&](int64_t begin, int64_t end) {
      const Scratch<S> column = columns();
      for (int64_t i = begin; i < end; ++i) {
        const Tile t(tiles, s, i);
        for (int64_t group = 0; group < s.groups; ++group)
          product(ProductArgs<S, T, S>{.a = weights(w, group),
                                       .b = unfolded(x, column.data(), t, group),
                                       .c = output(y, t, group),
                                       .bias = bias == nullptr ? nullptr : bias + group * s.group_outputs,
                                       .bias_row = 1,
                                       .bias_column = 0});
      }
    });
  }

  // Tiles of an image overlap in dx: one thread takes them all.
  void grad_input(S* dx, const S* dy, const S* w) const {
    const int64_t size = s.group_channels * s.plane();
    parallel_for(s.images * s.groups, grain(), [&](int64_t begin, int64_t end) {
      if (s.pointwise()) {
        for (int64_t i = begin; i < end; ++i) {
          const MatrixRef<S> to{dx + i * size, s.taps(), s.plane(), s.plane(), 1};
          const Tile whole(tiles, s, i / s.groups);
          product(ProductArgs<S, T, S>{
              .a = transposed(weights(w, i % s.groups)), .b = output(dy, whole, i % s.groups), .c = to});
        }
        return;
      }
      const Scratch<T> column(column_size()), wide(std::is_same_v<S, T> ? 0 : size);
      for (int64_t i = begin; i < end; ++i) {
        T* sums = wide.data();
        if constexpr (std::is_same_v<S, T>) sums = dx + i * size;
        std::fill_n(sums, size, T(0));
        for (int64_t tile = 0; tile < tiles.count; ++tile)
          input_tile(sums, dy, w, column.data(), Tile(tiles, s, i / s.groups * tiles.count + tile), i % s.groups);
        if constexpr (!std::is_same_v<S, T>) converter(dtype_of<S>(), dtype_of<T>())(dx + i * size, sums, size);
      }
    });
  }

  // Images (or tiles) are dealt to num_threads() parts; each sums into its own dw, and these are added in order.
  void grad_weight(T* dw, const S* dy, const S* x) const {
    const int64_t size = s.outputs * s.taps(), items = s.images * tiles.count;
    const int64_t parts = std::clamp<int64_t>(items / grain(), 1, num_threads());
    const Scratch<T> sums((parts - 1) * size);
    const auto sum = [&](int64_t part) { return part == 0 ? dw : sums.data() + (part - 1) * size; };
    parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
      const Scratch<S> column = columns();
      for (int64_t part = begin; part < end; ++part) {
        std::fill_n(sum(part), size, T(0));
        for (int64_t i = items * part / parts; i < items * (part + 1) / parts; ++i)
          weight_tile(sum(part), dy, x, column.data(), Tile(tiles, s, i));
      }
    });
    parallel_for(size, grain_of(parts), [&](int64_t begin, int64_t end) {
      for (int64_t part = 1; part < parts; ++part)
        for (int64_t i = begin; i < end; ++i) dw[i] += sum(part)[i];
    });
  }

 private:
  const ConvShape& s;
  Tiles tiles;

  int64_t grain() const {
    return grain_of(2 * s.outputs * s.taps() * std::max<int64_t>(1, tiles.rows * s.out_width), parallel_flops);
  }
  int64_t column_size() const { return s.pointwise() ? 0 : s.taps() * tiles.rows * s.out_width; }
  Scratch<S> columns() const { return Scratch<S>(column_size()); }
  int64_t pixels(const Tile& t) const { return (t.last - t.first) * s.out_width; }

  template <class U>
  MatrixRef<U> output(U* y, const Tile& t, int64_t group) const {
    U* const at = y + (t.image * s.outputs + group * s.group_outputs) * s.out_plane() + t.first * s.out_width;
    return {at, s.group_outputs, pixels(t), s.out_plane(), 1};
  }
  template <class U>
  MatrixRef<U> weights(U* w, int64_t group) const {
    return {w + group * s.group_outputs * s.taps(), s.group_outputs, s.taps(), s.taps(), 1};
  }
  MatrixRef<const S> unfolded(const S* x, S* column, const Tile& t, int64_t group) const {
    const S* const from = x + (t.image * s.groups + group) * s.group_channels * s.plane();
    if (s.pointwise()) return {from + t.first * s.width, s.taps(), pixels(t), s.plane(), 1};
    unfold(s, column, from, t.first, t.last);
    return {column, s.taps(), pixels(t), pixels(t), 1};
  }
  template <class U>
  static MatrixRef<U> transposed(MatrixRef<U> m) {
    std::swap(m.rows, m.columns);
    std::swap(m.row_stride, m.column_stride);
    return m;
  }

  void input_tile(T* dx, const S* dy, const S* w, T* column, const Tile& t, int64_t group) const {
    product(ProductArgs<S, T, T>{.a = transposed(weights(w, group)),
                                 .b = output(dy, t, group),
                                 .c = {column, s.taps(), pixels(t), pixels(t), 1}});
    fold(s, dx, column, t.first, t.last);
  }

  void weight_tile(T* dw, const S* dy, const S* x, S* column, const Tile& t) const {
    for (int64_t group = 0; group < s.groups; ++group)
      product(ProductArgs<S, T, T>{.a = output(dy, t, group),
                                   .b = transposed(unfolded(x, column, t, group)),
                                   .c = weights(dw, group),
                                   .beta = 1});
  }
};

// Each takes a kernel made for the shape where there is one, and the general way else.
template <class E, class S>
void forward(const ConvShape& s, S* y, const S* x, const S* w, const SumOf<E>* bias) {
  if constexpr (!is_pair<E>)
    if (s.depthwise()) return depthwise_forward(s, y, x, w, bias);
  if constexpr (std::is_same_v<E, float>)
    if (suits_winograd(s) && winograd_forward(s, y, x, w, bias)) return;
  if constexpr (std::is_same_v<E, float>)
    if (suits_pointwise_forward(s)) return pointwise_forward(s, y, x, w, bias);
  if constexpr (has_direct_conv<E>)
    if (suits_direct_forward<E>(s)) return direct_forward<E>(s, y, x, w, bias);
  Conv<E>(s, true).forward(y, x, w, bias);
}

template <class E, class S>
void grad_input(const ConvShape& s, S* dx, const S* dy, const S* w) {
  if constexpr (!is_pair<E>)
    if (s.depthwise()) return depthwise_grad_input(s, dx, dy, w);
  if constexpr (std::is_same_v<E, float>)
    if (suits_winograd(s) && winograd_grad_input(s, dx, dy, w)) return;
  if constexpr (std::is_same_v<E, float>)
    if (suits_pointwise_grad_input(s)) return pointwise_grad_input(s, dx, dy, w);
  if constexpr (has_direct_conv<E>)
    if (suits_direct_grad_input<E>(s)) return direct_grad_input<E>(s, dx, dy, w);
  Conv<E>(s, false).grad_input(dx, dy, w);
}

template <class E, class S>
void grad_weight(const ConvShape& s, SumOf<E>* dw, const S* dy, const S* x) {
  if constexpr (!is_pair<E>)
    if (s.depthwise()) return depthwise_grad_weight(s, dw, dy, x);
  if constexpr (std::is_same_v<E, float>)
    if (suits_winograd(s) && winograd_grad_weight(s, dw, dy, x)) return;
  if constexpr (std::is_same_v<E, float>)
    if (suits_one_channel_grad_weight(s)) return one_channel_grad_weight(s, dw, dy, x);
  if constexpr (has_direct_conv<E>)
    if (suits_direct_grad_weight<E>(s)) return direct_grad_weight<E>(s, dw, dy, x);
  Conv<E>(s, true).grad_weight(dw, dy, x);
}

// Calls f with the E of Conv that suits S on this processor.
template <class S, class F>
void with_products(const ConvShape& s, const F& f) {
  if constexpr (std::is_same_v<S, BFloat16> && may_have_pair_products)
    if (has_pair_products() && !s.depthwise()) return f.template operator()<BFloat16Pair, BFloat16>();
  f.template operator()<compute_type<S>, compute_type<S>>();
}

// Transformed tiles make a third of the multiplications that a library's plain convolutions make.
bool may_go_to_a_library(const ConvShape& s, DType t) { return t != DType::f32 || !suits_winograd(s); }

}  // namespace

void Cpu::conv2d(const View& y, const View& x, const View& w, const View& bias, const ConvGeometry& g) {
  if (y.numel() == 0) return;
  const ConvShape s(x.shape, w.shape, y.shape, g);
  if (may_go_to_a_library(s, x.dtype) && onednn::conv2d(y, x, w, bias, g)) return;
  with_floating("conv2d", x.dtype, [&]<class X> {
    with_products<X>(s, [&]<class E, class S> {
      const DenseInput<S> in(x), weight(w);
      const DenseInput<SumOf<E>> b(bias);
      const DenseOutput<S> out(y);
      forward<E>(s, out.data(), in.data(), weight.data(), b.data());
      out.store();
    });
  });
}

void Cpu::conv2d_grad_input(const View& dx, const View& dy, const View& w, const ConvGeometry& g) {
  if (dx.numel() == 0) return;
  const ConvShape s(dx.shape, w.shape, dy.shape, g);
  if (may_go_to_a_library(s, dy.dtype) && onednn::conv2d_grad_input(dx, dy, w, g)) return;
  with_floating("conv2d", dy.dtype, [&]<class X> {
    with_products<X>(s, [&]<class E, class S> {
      const DenseInput<S> gradient(dy), weight(w);
      const DenseOutput<S> out(dx);
      grad_input<E>(s, out.data(), gradient.data(), weight.data());
      out.store();
    });
  });
}

void Cpu::conv2d_grad_weight(const View& dw, const View& dy, const View& x, const ConvGeometry& g) {
  if (dw.numel() == 0) return;
  const ConvShape s(x.shape, dw.shape, dy.shape, g);
  if (may_go_to_a_library(s, dy.dtype) && onednn::conv2d_grad_weight(dw, dy, x, g)) return;
  with_floating("conv2d", dy.dtype, [&]<class X> {
    with_products<X>(s, [&]<class E, class S> {
      const DenseInput<S> gradient(dy), in(x);
      const DenseOutput<SumOf<E>> out(dw);
      grad_weight<E>(s, out.data(), gradient.data(), in.data());
      out.store();
    });
  });
}

}  // namespace loom
