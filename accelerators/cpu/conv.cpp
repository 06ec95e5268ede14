// Convolution: which kernel a shape takes, and the general one, as matrix products: each image (or a tile of its output
// rows) is unfolded into columns, one per output pixel. Threads take images, so a thread's columns stay in its cache.
#include <algorithm>

#include <loom/accelerators/cpu/direct_conv.h>
#include <loom/accelerators/cpu/gemm.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/cpu/unfold.h>
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
    count = (s.out_height + rows - 1) / rows;
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

template <class T>
class Conv {
 public:
  Conv(const ConvShape& shape, bool spread) : s(shape), tiles(shape, sizeof(T), spread) {}

  void forward(T* y, const T* x, const T* w, const T* bias) const {
    parallel_for(s.images * tiles.count, grain(), [&](int64_t begin, int64_t end) {
      const Scratch<T> column = columns();
      for (int64_t i = begin; i < end; ++i) {
        const Tile t(tiles, s, i);
        for (int64_t group = 0; group < s.groups; ++group) {
          const MatrixRef<T> out = output(y, t, group);
          for (int64_t o = 0; o < out.rows; ++o)
            std::fill_n(out.data + o * out.row_stride, out.columns,
                        bias != nullptr ? bias[group * s.group_outputs + o] : T(0));
          multiply_add(out, weights(w, group), unfolded(x, column.data(), t, group));
        }
      }
    });
  }

  void grad_input(T* dx, const T* dy, const T* w) const {
    const int64_t channels =
        s.group_channels * s.plane();  // tiles of an image overlap in dx: one thread takes them all
    parallel_for(s.images * s.groups, grain(), [&](int64_t begin, int64_t end) {
      const Scratch<T> column = columns();
      for (int64_t i = begin; i < end; ++i) {
        std::fill_n(dx + i * channels, channels, T(0));
        for (int64_t tile = 0; tile < tiles.count; ++tile) {
          const Tile t(tiles, s, i / s.groups * tiles.count + tile);
          input_tile(dx + i * channels, dy, w, column.data(), t, i % s.groups);
        }
      }
    });
  }

  // Images (or tiles) are dealt to num_threads() parts; each sums into its own dw, and these are added in order.
  void grad_weight(T* dw, const T* dy, const T* x) const {
    const int64_t size = s.outputs * s.taps(), items = s.images * tiles.count;
    const int64_t parts = std::clamp<int64_t>(items / grain(), 1, num_threads());
    const Scratch<T> sums((parts - 1) * size);
    const auto sum = [&](int64_t part) { return part == 0 ? dw : sums.data() + (part - 1) * size; };
    parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
      const Scratch<T> column = columns();
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
  Scratch<T> columns() const { return Scratch<T>(s.pointwise() ? 0 : s.taps() * tiles.rows * s.out_width); }
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
  MatrixRef<const T> unfolded(const T* x, T* column, const Tile& t, int64_t group) const {
    const T* const from = x + (t.image * s.groups + group) * s.group_channels * s.plane();
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

  void input_tile(T* dx, const T* dy, const T* w, T* column, const Tile& t, int64_t group) const {
    const auto kernel = transposed(weights(w, group));
    const auto g = output(dy, t, group);
    if (s.pointwise()) {
      multiply_add(MatrixRef<T>{dx + t.first * s.width, s.taps(), pixels(t), s.plane(), 1}, kernel, g);
      return;
    }
    std::fill_n(column, s.taps() * pixels(t), T(0));
    multiply_add(MatrixRef<T>{column, s.taps(), pixels(t), pixels(t), 1}, kernel, g);
    fold(s, dx, column, t.first, t.last);
  }

  void weight_tile(T* dw, const T* dy, const T* x, T* column, const Tile& t) const {
    for (int64_t group = 0; group < s.groups; ++group)
      multiply_add(weights(dw, group), output(dy, t, group), transposed(unfolded(x, column, t, group)));
  }
};

template <class T>
void forward(const ConvShape& s, T* y, const T* x, const T* w, const T* bias) {
  if (s.depthwise()) return depthwise_forward(s, y, x, w, bias);
  if constexpr (std::is_same_v<T, float>)
    if (suits_direct_forward(s)) return direct_forward(s, y, x, w, bias);
  Conv<T>(s, true).forward(y, x, w, bias);
}

template <class T>
void grad_input(const ConvShape& s, T* dx, const T* dy, const T* w) {
  if (s.depthwise()) return depthwise_grad_input(s, dx, dy, w);
  if constexpr (std::is_same_v<T, float>)
    if (suits_direct_grad_input(s)) return direct_grad_input(s, dx, dy, w);
  Conv<T>(s, false).grad_input(dx, dy, w);
}

template <class T>
void grad_weight(const ConvShape& s, T* dw, const T* dy, const T* x) {
  if (s.depthwise()) return depthwise_grad_weight(s, dw, dy, x);
  if constexpr (std::is_same_v<T, float>)
    if (suits_direct_grad_weight(s)) return direct_grad_weight(s, dw, dy, x);
  Conv<T>(s, true).grad_weight(dw, dy, x);
}

}  // namespace

void Cpu::conv2d(const View& y, const View& x, const View& w, const View& bias, const ConvGeometry& g) {
  with_floating("conv2d", x.dtype, [&]<class S> {
    if (y.numel() == 0) return;
    using T = compute_type<S>;
    const ConvShape s(x.shape, w.shape, y.shape, g);
    const DenseInput<T> in(x), weight(w), b(bias);
    const DenseOutput<T> out(y);
    forward(s, out.data(), in.data(), weight.data(), b.data());
    out.store();
  });
}

void Cpu::conv2d_grad_input(const View& dx, const View& dy, const View& w, const ConvGeometry& g) {
  with_floating("conv2d", dy.dtype, [&]<class S> {
    if (dx.numel() == 0) return;
    using T = compute_type<S>;
    const ConvShape s(dx.shape, w.shape, dy.shape, g);
    const DenseInput<T> gradient(dy), weight(w);
    const DenseOutput<T> out(dx);
    grad_input(s, out.data(), gradient.data(), weight.data());
    out.store();
  });
}

void Cpu::conv2d_grad_weight(const View& dw, const View& dy, const View& x, const ConvGeometry& g) {
  with_floating("conv2d", dy.dtype, [&]<class S> {
    if (dw.numel() == 0) return;
    using T = compute_type<S>;
    const ConvShape s(x.shape, dw.shape, dy.shape, g);
    const DenseInput<T> gradient(dy), in(x);
    const DenseOutput<T> out(dw);
    grad_weight(s, out.data(), gradient.data(), in.data());
    out.store();
  });
}

}  // namespace loom
