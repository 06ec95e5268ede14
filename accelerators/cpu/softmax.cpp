// Softmax and its logarithm along one dim, and their gradients, on dense [outer, n, inner].
#include <algorithm>

#include <loom/accelerators/cpu/rows.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/threads.h>

namespace loom {
using namespace cpu;

namespace {

constexpr int64_t block = 64;  // columns taken together where dim is not the last

struct Extents {
  int64_t outer = 1, n = 1, inner = 1;
  Extents(const Dims& shape, int dim) {
    for (int d = 0; d < shape.size(); ++d) (d < dim ? outer : d == dim ? n : inner) *= shape[d];
  }
};

// Calls f(offset, width) for every row (inner == 1: width 1) or block of adjacent columns.
template <class F>
void for_each_line(const Extents& e, const F& f) {
  const int64_t blocks = (e.inner + block - 1) / block, width = std::min(block, e.inner);
  parallel_for(e.outer * blocks, grain_of(e.n * width * 4), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t column = i % blocks * block;
      f(i / blocks * e.n * e.inner + column, std::min(block, e.inner - column));
    }
  });
}

template <class T>
void softmax_row(T* y, const T* x, int64_t n, bool log) {
  const T top = largest(x, n);
  if (log) {
    const auto lse = static_cast<T>(std::log(blocked_sum<T>(n, [=](int64_t i) { return vector_exp(x[i] - top); })));
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] - top - lse;
  } else {
    const double sum = blocked_sum<T>(n, [=](int64_t i) { return y[i] = vector_exp(x[i] - top); });
    const auto scale = static_cast<T>(1 / sum);
    for (int64_t i = 0; i < n; ++i) y[i] *= scale;
  }
}

template <class T>
void softmax_columns(T* y, const T* x, const Extents& e, int64_t width, bool log) {
  T top[block], sum[block];
  std::copy_n(x, width, top);
  std::fill_n(sum, width, T(0));
  for (int64_t i = 1; i < e.n; ++i)
    for (int64_t j = 0; j < width; ++j) top[j] = x[i * e.inner + j] > top[j] ? x[i * e.inner + j] : top[j];
  for (int64_t i = 0; i < e.n; ++i)
    for (int64_t j = 0; j < width; ++j) {
      const T shifted = x[i * e.inner + j] - top[j], power = vector_exp(shifted);
      sum[j] += power;
      y[i * e.inner + j] = log ? shifted : power;
    }
  for (int64_t j = 0; j < width; ++j) sum[j] = log ? std::log(sum[j]) : T(1) / sum[j];
  for (int64_t i = 0; i < e.n; ++i)
    for (int64_t j = 0; j < width; ++j) {
      T& out = y[i * e.inner + j];
      out = log ? out - sum[j] : out * sum[j];
    }
}

template <class T>
void grad_row(T* dx, const T* dy, const T* y, int64_t n, bool log) {
  if (log) {
    const auto sum = static_cast<T>(blocked_sum<T>(n, [=](int64_t i) { return dy[i]; }));
    for (int64_t i = 0; i < n; ++i) dx[i] = dy[i] - vector_exp(y[i]) * sum;
  } else {
    const auto sum = static_cast<T>(blocked_sum<T>(n, [=](int64_t i) { return dy[i] * y[i]; }));
    for (int64_t i = 0; i < n; ++i) dx[i] = y[i] * (dy[i] - sum);
  }
}

template <class T>
void grad_columns(T* dx, const T* dy, const T* y, const Extents& e, int64_t width, bool log) {
  T sum[block];
  std::fill_n(sum, width, T(0));
  for (int64_t i = 0; i < e.n; ++i)
    for (int64_t j = 0; j < width; ++j) sum[j] += log ? dy[i * e.inner + j] : dy[i * e.inner + j] * y[i * e.inner + j];
  for (int64_t i = 0; i < e.n; ++i)
    for (int64_t j = 0; j < width; ++j) {
      const int64_t at = i * e.inner + j;
      dx[at] = log ? dy[at] - vector_exp(y[at]) * sum[j] : y[at] * (dy[at] - sum[j]);
    }
}

}  // namespace

void Cpu::softmax(const View& y, const View& x, int dim, bool log) {
  with_floating(log ? "log_softmax" : "softmax", x.dtype, [&]<class S> {
    if (y.numel() == 0) return;
    using T = compute_type<S>;
    const DenseInput<T> in(x);
    const DenseOutput<T> out(y);
    const Extents e(x.shape, dim);
    for_each_line(e, [&](int64_t at, int64_t width) {
      if (e.inner == 1)
        softmax_row(out.data() + at, in.data() + at, e.n, log);
      else
        softmax_columns(out.data() + at, in.data() + at, e, width, log);
    });
    out.store();
  });
}

void Cpu::softmax_grad(const View& dx, const View& dy, const View& y, int dim, bool log) {
  with_floating(log ? "log_softmax" : "softmax", y.dtype, [&]<class S> {
    if (dx.numel() == 0) return;
    using T = compute_type<S>;
    const DenseInput<T> g(dy), in(y);
    const DenseOutput<T> out(dx);
    const Extents e(y.shape, dim);
    for_each_line(e, [&](int64_t at, int64_t width) {
      if (e.inner == 1)
        grad_row(out.data() + at, g.data() + at, in.data() + at, e.n, log);
      else
        grad_columns(out.data() + at, g.data() + at, in.data() + at, e, width, log);
    });
    out.store();
  });
}

}  // namespace loom
