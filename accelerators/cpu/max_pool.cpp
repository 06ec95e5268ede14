// SPDX-License-Identifier: Apache-2.0
// Max pooling and its gradient, a plane at a time; the common 2 x 2 windows side by side in vectors.
#include <array>
#include <limits>

#include <loom/accelerators/cpu/pool.h>
#include <loom/accelerators/cpu/shuffle.h>

namespace loom {
using namespace cpu;

namespace {

// As torch: the first of equals, but a later NaN takes over.
template <class T>
bool wins(T value, T best) {
  return value > best || value != value;
}

template <class T>
void max_plane(T* y, int64_t* index, const T* x, int64_t width, const Windows& windows, const PoolGeometry& g) {
  for (const Window& rows : windows.rows)
    for (const Window& columns : windows.columns) {
      T best = -std::numeric_limits<T>::infinity();
      int64_t at = rows.inside() > 0 && columns.inside() > 0 ? rows.begin * width + columns.begin : 0;
      for (int64_t h = rows.begin; h < rows.end; h += g.dilation[0])
        for (int64_t w = columns.begin; w < columns.end; w += g.dilation[1]) {
          const T value = x[h * width + w];
          const bool take = wins(value, best);
          best = take ? value : best;
          at = take ? h * width + w : at;
        }
      *y++ = best;
      *index++ = at;
    }
}

template <class T>
void add_plane(T* dx, const T* dy, const int64_t* index, const Planes& p) {
  std::fill_n(dx, p.size(), T(0));
  for (int64_t i = 0; i < p.out_size(); ++i) dx[index[i]] += dy[i];
}

// Kernel 2, stride 2, no padding: windows do not overlap, and a row of them is two rows of x. The elements of a window
// are a b / c d; positions are counted from the window's a: 0, 1, width, width + 1.
template <class T, int count>
struct Quads {
  using Int = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  using V = typename VectorOf<T, count * sizeof(T)>::type;
  using Positions = typename VectorOf<Int, count * sizeof(T)>::type;

  template <class A, class E>
  [[gnu::always_inline]] static A read(const E* p) {
    A v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  [[gnu::always_inline]] static void take(V value, Int position, V& best, Positions& at) {
    const auto won = (value > best) | (value != value);
    best = won ? value : best;
    at = won ? position - Positions{} : at;
  }
  static void forward(T* y, int64_t* index, const T* upper, int64_t width, int64_t start) {
    const V a = read<V>(upper), b = read<V>(upper + count), c = read<V>(upper + width),
            d = read<V>(upper + width + count);
    V best = evens(a, b);
    Positions at{};
    take(odds(a, b), 1, best, at);
    take(evens(c, d), static_cast<Int>(width), best, at);
    take(odds(c, d), static_cast<Int>(width + 1), best, at);
    store(y, best);
    std::array<Int, count> position;
    store(position.data(), at);
    for (size_t i = 0; i < count; ++i) index[i] = start + 2 * static_cast<int64_t>(i) + position[i];
  }
  static void backward(T* upper, const T* dy, const int64_t* index, int64_t width, int64_t start) {
    const V g = read<V>(dy), none{};
    std::array<Int, count> position;
    for (size_t i = 0; i < count; ++i) position[i] = static_cast<Int>(index[i] - start - 2 * static_cast<int64_t>(i));
    const auto at = read<Positions>(position.data());
    const auto share = [&](int64_t where) { return at == static_cast<Int>(where) ? g : none; };
    const V a = share(0), b = share(1), c = share(width), d = share(width + 1);
    store(upper, interleave_low(a, b));
    store(upper + count, interleave_high(a, b));
    store(upper + width, interleave_low(c, d));
    store(upper + width + count, interleave_high(c, d));
  }
};

bool is_2x2(const PoolGeometry& g, const Planes& p) {
  constexpr std::array<int64_t, 2> one{1, 1}, two{2, 2}, none{0, 0};
  return g.kernel == two && g.stride == two && g.padding == none && g.dilation == one && 2 * p.out_height <= p.height &&
         2 * p.out_width <= p.width && p.width < std::numeric_limits<int32_t>::max();
}

// f(window) for each `count` windows of a row of at least as many; the last of them may overlap those before.
template <int count, class F>
void for_quads(int64_t windows, const F& f) {
  for (int64_t i = 0; i + count < windows; i += count) f(i);
  f(windows - count);
}

template <class T, int count>
void max_plane_2x2(T* y, int64_t* index, const T* x, const Planes& p) {
  for (int64_t row = 0; row < p.out_height; ++row)
    for_quads<count>(p.out_width, [&](int64_t i) {
      const int64_t out = row * p.out_width + i, start = 2 * row * p.width + 2 * i;
      Quads<T, count>::forward(y + out, index + out, x + start, p.width, start);
    });
}

template <class T, int count>
void add_plane_2x2(T* dx, const T* dy, const int64_t* index, const Planes& p) {
  for (int64_t row = 0; row < p.out_height; ++row) {
    T* const upper = dx + 2 * row * p.width;
    for_quads<count>(p.out_width, [&](int64_t i) {
      const int64_t out = row * p.out_width + i, start = 2 * row * p.width + 2 * i;
      Quads<T, count>::backward(dx + start, dy + out, index + out, p.width, start);
    });
    for (int64_t w = 2 * p.out_width; w < p.width; ++w) upper[w] = upper[w + p.width] = T(0);
  }
  std::fill(dx + 2 * p.out_height * p.width, dx + p.size(), T(0));
}

// f.template operator()<n>() with the most windows that a vector and a row have; false for rows too short for vectors.
template <class T, class F>
bool with_quads(const PoolGeometry& g, const Planes& p, const F& f) {
  constexpr int most = lanes<T>, least = 16 / sizeof(T);
  if (!is_2x2(g, p) || p.out_width < least) return false;
  const auto use = [&]<int n> {
    if constexpr (n >= least) f.template operator()<n>();
  };
  if (p.out_width >= most)
    use.template operator()<most>();
  else if (2 * p.out_width >= most)
    use.template operator()<most / 2>();
  else
    use.template operator()<most / 4>();
  return true;
}

}  // namespace

void Cpu::max_pool2d(const View& y, const View& index, const View& x, const PoolGeometry& g) {
  with_floating("max_pool2d", x.dtype, [&]<class S> {
    using T = compute_type<S>;
    const DenseInput<T> in(x);
    const DenseOutput<T> out(y);
    const DenseOutput<int64_t> at(index);
    const Planes p(x.shape, y.shape);
    const Windows windows(p, g);
    const auto planes = [&](int64_t cost, const auto& pool) {
      p.for_each(cost, [&](int64_t i) {
        pool(out.data() + i * p.out_size(), at.data() + i * p.out_size(), in.data() + i * p.size());
      });
    };
    const bool done = with_quads<T>(g, p, [&]<int n> {
      planes(1, [&](T* to, int64_t* where, const T* from) { max_plane_2x2<T, n>(to, where, from, p); });
    });
    if (!done)
      planes(g.kernel[0] * g.kernel[1],
             [&](T* to, int64_t* where, const T* from) { max_plane(to, where, from, p.width, windows, g); });
    out.store();
    at.store();
  });
}

void Cpu::max_pool2d_grad(const View& dx, const View& dy, const View& index, const PoolGeometry& g) {
  with_floating("max_pool2d", dy.dtype, [&]<class S> {
    using T = compute_type<S>;
    const DenseInput<T> in(dy);
    const DenseInput<int64_t> at(index);
    const DenseOutput<T> out(dx);
    const Planes p(dx.shape, dy.shape);
    const auto planes = [&](const auto& spread) {
      p.for_each(1, [&](int64_t i) {
        spread(out.data() + i * p.size(), in.data() + i * p.out_size(), at.data() + i * p.out_size());
      });
    };
    const bool done = with_quads<T>(g, p, [&]<int n> {
      planes([&](T* to, const T* from, const int64_t* where) { add_plane_2x2<T, n>(to, from, where, p); });
    });
    if (!done) planes([&](T* to, const T* from, const int64_t* where) { add_plane(to, from, where, p); });
    out.store();
  });
}

}  // namespace loom
