// SPDX-License-Identifier: Apache-2.0
#include <loom/accelerators/cpu/gemm_args.h>
#include <loom/accelerators/cpu/gemm_pack.h>
#include <loom/accelerators/cpu/gemm_tile.h>
#include <loom/accelerators/cpu/pointwise_conv.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/cpu/shuffle.h>
#include <loom/accelerators/threads.h>

namespace loom::cpu {

namespace {

constexpr int n = lanes<float>;
constexpr int64_t width = int64_t{tile_vectors} * n;  // of a panel, the columns that a tile takes

// Weights [rows, depth] times the columns of x, which are the pixels of all images: x [images, depth, pixels]. The sums
// of pixel (r, q) become pixel (r, q) * stride of y [images, rows, y_size]; its other pixels are zero.
struct Columns {
  int64_t images, rows, depth;
  std::array<int64_t, 2> x_size, y_size, stride;
  Lines<float> weights;
  const float *bias, *x;
  float* y;

  int64_t pixels() const { return x_size[0] * x_size[1]; }
  int64_t y_pixels() const { return y_size[0] * y_size[1]; }
  bool spreads() const { return x_size != y_size; }
};

// Weights as tiles read them.
struct PackedWeights {
  int64_t tiles, height, stride;
  Scratch<float> memory;

  explicit PackedWeights(const Columns& c)
      : tiles(ceil_div(c.rows, tile_rows)),
        height(ceil_div(c.rows, tiles)),
        stride(height * c.depth + n),
        memory(tiles * stride) {
    parallel_for(tiles, grain_of(height * c.depth), [&](int64_t begin, int64_t end) {
      const int64_t first = std::min(begin * height, c.rows), last = std::min(end * height, c.rows);
      const Lines<float> some{c.weights.data + first * c.weights.line_stride, c.weights.line_stride, c.weights.step};
      pack(memory.data() + begin * stride, height, stride, some, last - first, c.depth, c.rows - first);
    });
  }
};

// `count` floats with a zero behind each; the last zero only where `extent` has room for it.
void put_between_zeros(float* to, const float* from, int64_t extent) {
  constexpr Vec<float> zeros{};
  for (int64_t i = 0; i < extent; i += 2 * n, from += n) {
    const Vec<float> v = load(from), low = interleave_low(v, zeros), high = interleave_high(v, zeros);
    const int64_t rest = extent - i;
    if (rest >= 2 * n) {
      store(to + i, low);
      store(to + i + n, high);
    } else {
      store(to + i, low, FirstLanes<float>(std::min<int64_t>(rest, n)));
      if (rest > n) store(to + i + n, high, FirstLanes<float>(rest - n));
    }
  }
}

void put_apart(float* to, int64_t stride, const float* from, int64_t count, int64_t extent) {
  std::fill_n(to, extent, 0.0F);
  for (int64_t i = 0; i < count; ++i) to[i * stride] = from[i];
}

// One, which stays in the first cache, where the second one has the weights; more where these come from further away.
int64_t panels_together(const Columns& c) {
  const int64_t weights = c.rows * c.depth * 4, panel = c.depth * width * 4;
  return weights <= second_cache() / 2 ? 1 : std::max<int64_t>(1, second_cache() / 8 / panel);
}

// One thread's buffers. Columns are taken in chunks, whose panels stay in the second cache while all weights pass.
class Worker {
 public:
  Worker(const Columns& columns, const PackedWeights& weights, int64_t columns_in_all)
      : c_(columns),
        w_(weights),
        most_(std::min(ceil_div(columns_in_all, width), panels_together(c_)) * width),
        packed_(most_ * c_.depth),
        sums_(w_.height * most_ + 2 * n) {}

  void run(int64_t begin, int64_t end, int64_t first_tile, int64_t end_tile) {
    for (int64_t first = begin; first < end; first += most_) {
      const int64_t last = std::min(end, first + most_);
      for (int64_t at = first; at < last; at += width)
        if (!lies_well(at, last)) pack_panel(packed_.data() + (at - first) * c_.depth, at, std::min(last, at + width));
      for (int64_t tile = first_tile; tile < end_tile; ++tile) rows(tile, first, last, end);
    }
  }

 private:
  // Neighbouring pixels of one image, from column `first` on.
  struct Run {
    int64_t image, pixel, count;
  };
  Run run_at(int64_t first, int64_t last) const {
    const int64_t pixel = first % c_.pixels();
    return {first / c_.pixels(), pixel, std::min(last - first, c_.pixels() - pixel)};
  }
  const float* place(const Run& run) const { return c_.x + run.image * c_.depth * c_.pixels() + run.pixel; }

  // Whether tiles read the panel from column `at` on where it lies: whole rows, whose lines do not evict one another.
  bool lies_well(int64_t at, int64_t last) const { return run_at(at, last).count >= width && c_.pixels() % 512 != 0; }
  void pack_panel(float* to, int64_t first, int64_t last) const {
    for (int64_t at = first; at < last;) {
      const Run run = run_at(at, last);
      const float* from = place(run);
      float* row = to + at - first;
      if (run.count == width)
        for (int64_t k = 0; k < c_.depth; ++k, from += c_.pixels(), row += width)
#pragma GCC unroll 4
          for (int v = 0; v < tile_vectors; ++v) store(row + v * n, load(from + v * n));
      else
        for (int64_t k = 0; k < c_.depth; ++k, from += c_.pixels(), row += width) copy(row, from, run.count);
      at += run.count;
    }
  }
  static void copy(float* to, const float* from, int64_t count) {
    for (; count >= n; count -= n, to += n, from += n) store(to, load(from));
    if (count > 0) store(to, load_first(from, count), FirstLanes<float>(count));
  }

  // A tile's rows of the columns [first, last). Meanwhile the next ones, up to `end`, are asked for.
  void rows(int64_t tile, int64_t first, int64_t last, int64_t end) {
    const int64_t row = tile * w_.height, count = std::min(w_.height, c_.rows - row),
                  slots = ceil_div(last - first, width);
    for (int64_t at = first, slot = 0; at < last; at += width, ++slot) {
      const Run run = run_at(at, std::min(last, at + width));
      const int64_t columns = std::min(width, last - at), vectors = ceil_div(columns, n);
      const bool whole = masks_tiles || columns == vectors * n, direct = whole && run.count == columns && !c_.spreads();
      float* const to =
          direct ? c_.y + (run.image * c_.rows + row) * c_.pixels() + run.pixel : sums_.data() + at - first;
      TileEnd<float> ends;
      if (c_.bias != nullptr) ends.bias = c_.bias + row, ends.bias_row = 1;
      const bool in_place = lies_well(at, last);
      const float* const x = in_place ? place(run) : packed_.data() + (at - first) * c_.depth;
      tile_kernel<float, float>(count, vectors)({c_.depth, w_.memory.data() + tile * w_.stride, w_.height, 1, x,
                                                 in_place ? c_.pixels() : width, to, direct ? c_.pixels() : most_,
                                                 direct ? columns : vectors * n, ends,
                                                 ahead(last, end, slots * c_.rows, row * slots + slot * count)});
      if (!direct && !c_.spreads()) put(row, count, first, at, at + columns);
    }
    if (c_.spreads()) put(row, count, first, first, last);
  }

  Ahead ahead(int64_t first, int64_t end, int64_t slots, int64_t done) const {
    if (first >= end) return {};
    const Run next = run_at(first, std::min(end, first + most_));
    return ahead_of(Lines<float>{place(next), 1, c_.pixels()}, next.count, c_.depth, slots, done);
  }

  // The sums of columns [begin, end) go where they belong.
  void put(int64_t row, int64_t count, int64_t first, int64_t begin, int64_t end) const {
    for (int64_t at = begin; at < end;) {
      Run run = run_at(at, end);
      const int64_t r = run.pixel / c_.x_size[1], q = run.pixel % c_.x_size[1];
      if (c_.spreads()) run.count = std::min(run.count, c_.x_size[1] - q);
      for (int64_t i = 0; i < count; ++i) {
        const float* const from = sums_.data() + i * most_ + at - first;
        float* const to = c_.y + (run.image * c_.rows + row + i) * c_.y_pixels();
        if (c_.spreads())
          spread(to, from, r, q, run.count);
        else
          copy(to + run.pixel, from, run.count);
      }
      at += run.count;
    }
  }

  // `count` sums of row r; the last of a row and of an image take the zeros that follow with them.
  void spread(float* y, const float* from, int64_t r, int64_t q, int64_t count) const {
    const bool ends_row = q + count == c_.x_size[1], ends_image = r + 1 == c_.x_size[0];
    float* const to = y + r * c_.stride[0] * c_.y_size[1];
    const int64_t step = c_.stride[1], begin = q * step, end = ends_row ? c_.y_size[1] : begin + count * step;
    if (step == 2 && end - begin <= 2 * count)
      put_between_zeros(to + begin, from, end - begin);
    else
      put_apart(to + begin, step, from, count, end - begin);
    if (!ends_row) return;
    const int64_t next = ends_image ? c_.y_size[0] : (r + 1) * c_.stride[0];
    std::fill(to + c_.y_size[1], y + next * c_.y_size[1], 0.0F);
  }

  const Columns& c_;
  const PackedWeights& w_;
  int64_t most_;  // columns of a chunk
  Scratch<float> packed_, sums_;
};

// Threads share columns, or rows where columns are too few to go round.
void run(const Columns& c) {
  constexpr int64_t worth = 400'000, enough = 8;
  const PackedWeights weights(c);
  const int64_t count = c.images * c.pixels(), panels = ceil_div(count, width), flops = 2 * c.rows * c.depth * count;
  if (panels >= enough * num_threads())
    return parallel_for(panels, grain_of(flops / panels, worth), [&](int64_t begin, int64_t end) {
      const int64_t first = begin * width, last = std::min(count, end * width);
      Worker(c, weights, last - first).run(first, last, 0, weights.tiles);
    });
  parallel_for(weights.tiles, grain_of(flops / weights.tiles, worth),
               [&](int64_t begin, int64_t end) { Worker(c, weights, count).run(0, count, begin, end); });
}

bool is_pointwise(const ConvShape& s) {
  constexpr std::array<int64_t, 2> none{0, 0};
  return s.kernel_h == 1 && s.kernel_w == 1 && s.g.padding == none && s.groups == 1;
}

// Channels; columns; pixels of a plane that leave few lanes idle at the ends of images.
constexpr int64_t few = 16, least = 128, large = 512;

}  // namespace

bool suits_pointwise_forward(const ConvShape& s) {
  return is_pointwise(s) && s.pointwise() && s.plane() >= large && s.outputs >= few && s.channels >= few;
}

void pointwise_forward(const ConvShape& s, float* y, const float* x, const float* w, const float* bias) {
  run({s.images,
       s.outputs,
       s.channels,
       {s.height, s.width},
       {s.height, s.width},
       s.g.stride,
       {w, s.channels, 1},
       bias,
       x,
       y});
}

bool suits_pointwise_grad_input(const ConvShape& s) {
  constexpr int64_t small = 100;  // of planes between, direct tiles have as few idle lanes
  if (!is_pointwise(s) || s.outputs < few || s.channels < few || s.images * s.out_plane() < least) return false;
  return !s.pointwise() || s.plane() >= large || s.plane() <= small;
}

void pointwise_grad_input(const ConvShape& s, float* dx, const float* dy, const float* w) {
  run({s.images,
       s.channels,
       s.outputs,
       {s.out_height, s.out_width},
       {s.height, s.width},
       s.g.stride,
       {w, 1, s.channels},
       nullptr,
       dy,
       dx});
}

}  // namespace loom::cpu
