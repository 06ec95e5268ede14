// Softmax and its logarithm along one dim, and their gradients, on dense [outer, n, inner]: short rows in the registers
// of some lanes, long ones by a block that reads them twice, and where dim is not the last, columns.
#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/dense.h>
#include <loom/accelerators/cuda/rows.h>

namespace loom {

namespace {

using cuda::ExpSum;
using cuda::Pack;
using cuda::Plus;
using cuda::Run;
using cuda::threads_per_block;

struct Extents {
  int64_t outer = 1, n = 1, inner = 1;
  Extents(const Dims& shape, int dim) {
    for (int d = 0; d < shape.size(); ++d) (d < dim ? outer : d == dim ? n : inner) *= shape[d];
  }
};

// What is done last with each number: the sum's logarithm is taken off, or its reciprocal multiplied with.
template <class T>
__device__ __forceinline__ T last_of(T sum, bool log) {
  return log ? std::log(sum) : T(1) / sum;
}
template <class S, class T>
__device__ __forceinline__ T result_of(T x, T high, T last, bool log) {
  return log ? x - high - last : cuda::exp_of<S>(x - high) * last;
}
template <class S, class T>
__device__ __forceinline__ T gradient_of(T dy, T y, T sum, bool log) {
  return log ? dy - cuda::exp_of<S>(y) * sum : y * (dy - sum);
}

template <class S, int count, int lanes, int steps>
__global__ void __launch_bounds__(threads_per_block) softmax_short(S* y, const S* x, int64_t rows, int n, bool log) {
  using T = compute_type<S>;
  constexpr int together = threads_per_block / lanes;
  for (int64_t first = int64_t{blockIdx.x} * together; first < rows; first += int64_t{gridDim.x} * together) {
    const int64_t r = first + threadIdx.x / lanes;
    const bool live = r < rows;
    T v[steps * count], high = -std::numeric_limits<T>::infinity(), sum = 0;
    cuda::read_row<count, lanes, steps>(v, x + r * n, n, live, high);
#pragma unroll
    for (const T value : v) high = value > high ? value : high;
    high = cuda::across_lanes(high, lanes, cuda::Larger());
#pragma unroll
    for (T& value : v) {
      value -= high;
      const T power = cuda::exp_of<S>(value);
      sum += power;
      value = log ? value : power;
    }
    sum = cuda::across_lanes(sum, lanes, Plus());
    const T last = last_of(sum, log);
#pragma unroll
    for (T& value : v) value = log ? value - last : value * last;
    if (live) cuda::write_row<count, lanes, steps>(y + r * n, v, n);
  }
}

template <class S, int count, int lanes, int steps>
__global__ void __launch_bounds__(threads_per_block)
    softmax_grad_short(S* dx, const S* dy, const S* y, int64_t rows, int n, bool log) {
  using T = compute_type<S>;
  constexpr int together = threads_per_block / lanes;
  for (int64_t first = int64_t{blockIdx.x} * together; first < rows; first += int64_t{gridDim.x} * together) {
    const int64_t r = first + threadIdx.x / lanes;
    const bool live = r < rows;
    T g[steps * count], v[steps * count], sum = 0;
    cuda::read_row<count, lanes, steps>(g, dy + r * n, n, live, T(0));
    cuda::read_row<count, lanes, steps>(v, y + r * n, n, live, T(0));
#pragma unroll
    for (int i = 0; i < steps * count; ++i) sum += log ? g[i] : g[i] * v[i];
    sum = cuda::across_lanes(sum, lanes, Plus());
#pragma unroll
    for (int i = 0; i < steps * count; ++i) g[i] = gradient_of<S>(g[i], v[i], sum, log);
    if (live) cuda::write_row<count, lanes, steps>(dx + r * n, g, n);
  }
}

// A block a row; what it reads a second time is mostly in the L2 cache still.
template <class S>
__global__ void __launch_bounds__(threads_per_block)
    softmax_long(S* y, const S* x, int64_t rows, int64_t n, bool packs, bool log) {
  using T = compute_type<S>;
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    const S* const from = x + r * n;
    S* const to = y + r * n;
    auto total = cuda::no_exp_sum<T>();
    cuda::for_row(from, n, packs, threadIdx.x, threads_per_block,
                  [&]<int count>(int64_t i) { cuda::add_exp<S>(total, cuda::read_run<count>(from + i)); });
    total = cuda::across_block<threads_per_block>(total, cuda::JoinExpSums<S>());
    const T high = total.high, last = last_of(total.sum, log);
    cuda::for_row(from, n, packs, threadIdx.x, threads_per_block, [&]<int count>(int64_t i) {
      const auto in = cuda::read_run<count>(from + i);
      Run<S, count> out;
#pragma unroll
      for (int j = 0; j < count; ++j)
        out.items[j] = static_cast<S>(result_of<S>(static_cast<T>(in.items[j]), high, last, log));
      cuda::write_run(to + i, out);
    });
  }
}

template <class S>
__global__ void __launch_bounds__(threads_per_block)
    softmax_grad_long(S* dx, const S* dy, const S* y, int64_t rows, int64_t n, bool packs, bool log) {
  using T = compute_type<S>;
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    const S *const g = dy + r * n, *const v = y + r * n;
    S* const to = dx + r * n;
    T sum = 0;
    cuda::for_row(g, n, packs, threadIdx.x, threads_per_block, [&]<int count>(int64_t i) {
      const auto gs = cuda::read_run<count>(g + i);
      Run<S, count> ys{};
      if (!log) ys = cuda::read_run<count>(v + i);
#pragma unroll
      for (int j = 0; j < count; ++j)
        sum += log ? static_cast<T>(gs.items[j]) : static_cast<T>(gs.items[j]) * static_cast<T>(ys.items[j]);
    });
    sum = cuda::across_block<threads_per_block>(sum, Plus());
    cuda::for_row(g, n, packs, threadIdx.x, threads_per_block, [&]<int count>(int64_t i) {
      const auto gs = cuda::read_run<count>(g + i), ys = cuda::read_run<count>(v + i);
      Run<S, count> out;
#pragma unroll
      for (int j = 0; j < count; ++j)
        out.items[j] =
            static_cast<S>(gradient_of<S>(static_cast<T>(gs.items[j]), static_cast<T>(ys.items[j]), sum, log));
      cuda::write_run(to + i, out);
    });
  }
}

// Columns side by side: `across` neighbouring threads take a column each, the others of the block further parts of it.
struct Columns {
  int64_t outer, n, inner;
  int across;
  __device__ bool find(int64_t first, int64_t& at) const {
    const int64_t column = first + threadIdx.x % across;
    at = column / inner * n * inner + column % inner;
    return column < outer * inner;
  }
  // f(offset) of the elements of the column at `at` that are this thread's.
  template <class F>
  __device__ void for_part(bool live, int64_t at, const F& f) const {
    const int parts = threads_per_block / across;
    for (int64_t i = threadIdx.x / across; live && i < n; i += parts) f(at + i * inner);
  }
  // What the parts of each column have come to.
  template <class T, class Join>
  __device__ T joined(T value, const Join& join) const {
    __shared__ T parts[threads_per_block];
    __syncthreads();
    parts[threadIdx.x] = value;
    __syncthreads();
    const int column = threadIdx.x % across;
    value = parts[column];
    for (int i = column + across; i < threads_per_block; i += across) value = join(value, parts[i]);
    return value;
  }
};

template <class S>
__global__ void __launch_bounds__(threads_per_block) softmax_columns(S* y, const S* x, Columns columns, bool log) {
  using T = compute_type<S>;
  const int64_t count = columns.outer * columns.inner;
  for (int64_t first = int64_t{blockIdx.x} * columns.across; first < count;
       first += int64_t{gridDim.x} * columns.across) {
    int64_t at;
    const bool live = columns.find(first, at);
    auto total = cuda::no_exp_sum<T>();
    columns.for_part(live, at, [&](int64_t i) { cuda::add_exp<S>(total, cuda::read_run<1>(x + i)); });
    total = columns.joined(total, cuda::JoinExpSums<S>());
    const T high = total.high, last = last_of(total.sum, log);
    columns.for_part(live, at,
                     [&](int64_t i) { y[i] = static_cast<S>(result_of<S>(static_cast<T>(x[i]), high, last, log)); });
  }
}

template <class S>
__global__ void __launch_bounds__(threads_per_block)
    softmax_grad_columns(S* dx, const S* dy, const S* y, Columns columns, bool log) {
  using T = compute_type<S>;
  const int64_t count = columns.outer * columns.inner;
  for (int64_t first = int64_t{blockIdx.x} * columns.across; first < count;
       first += int64_t{gridDim.x} * columns.across) {
    int64_t at;
    const bool live = columns.find(first, at);
    T sum = 0;
    columns.for_part(live, at, [&](int64_t i) {
      sum += log ? static_cast<T>(dy[i]) : static_cast<T>(dy[i]) * static_cast<T>(y[i]);
    });
    sum = columns.joined(sum, Plus());
    columns.for_part(live, at, [&](int64_t i) {
      dx[i] = static_cast<S>(gradient_of<S>(static_cast<T>(dy[i]), static_cast<T>(y[i]), sum, log));
    });
  }
}

Columns columns_of(const Extents& e) { return {e.outer, e.n, e.inner, e.n >= 64 ? 32 : threads_per_block}; }
unsigned blocks_of(const Columns& c) { return cuda::blocks_for_rows(c.outer * c.inner, c.across); }

}  // namespace

void Cuda::softmax(const View& y, const View& x, int dim, bool log) {
  const char* const name = log ? "log_softmax" : "softmax";
  with_floating(name, x.dtype, [&]<class S> {
    if (y.numel() == 0) return;
    const Extents e(x.shape, dim);
    const cuda::DenseInput in(gpu_, *this, x, x.dtype);
    const cuda::DenseOutput out(gpu_, *this, y, y.dtype);
    S* const to = out.as<S>();
    const S* const from = in.as<S>();
    const auto run_short = [&]<int count, int lanes, int steps> {
      cuda::launch(gpu_, name, &softmax_short<S, count, lanes, steps>,
                   cuda::blocks_for_rows(e.outer, threads_per_block / lanes), threads_per_block, 0, to, from, e.outer,
                   e.n, log);
    };
    if (e.inner > 1) {
      const Columns columns = columns_of(e);
      cuda::launch(gpu_, name, &softmax_columns<S>, blocks_of(columns), threads_per_block, 0, to, from, columns, log);
    } else if (!cuda::with_row_shape<S>(e.n, cuda::is_aligned(to) && cuda::is_aligned(from), run_short)) {
      cuda::launch(gpu_, name, &softmax_long<S>, cuda::blocks_for_rows(e.outer, 1), threads_per_block, 0, to, from,
                   e.outer, e.n, cuda::lie_alike(to, from), log);
    }
    out.store();
  });
}

void Cuda::softmax_grad(const View& dx, const View& dy, const View& y, int dim, bool log) {
  const char* const name = log ? "log_softmax" : "softmax";
  with_floating(name, y.dtype, [&]<class S> {
    if (dx.numel() == 0) return;
    const Extents e(y.shape, dim);
    const cuda::DenseInput g_in(gpu_, *this, dy, dy.dtype), y_in(gpu_, *this, y, y.dtype);
    const cuda::DenseOutput out(gpu_, *this, dx, dx.dtype);
    S* const to = out.as<S>();
    const S *const g = g_in.as<S>(), *const v = y_in.as<S>();
    const auto run_short = [&]<int count, int lanes, int steps> {
      cuda::launch(gpu_, name, &softmax_grad_short<S, count, lanes, steps>,
                   cuda::blocks_for_rows(e.outer, threads_per_block / lanes), threads_per_block, 0, to, g, v, e.outer,
                   e.n, log);
    };
    if (e.inner > 1) {
      const Columns columns = columns_of(e);
      cuda::launch(gpu_, name, &softmax_grad_columns<S>, blocks_of(columns), threads_per_block, 0, to, g, v, columns,
                   log);
    } else if (!cuda::with_row_shape<S>(e.n, cuda::is_aligned(to) && cuda::is_aligned(g) && cuda::is_aligned(v),
                                        run_short)) {
      cuda::launch(gpu_, name, &softmax_grad_long<S>, cuda::blocks_for_rows(e.outer, 1), threads_per_block, 0, to, g, v,
                   e.outer, e.n, cuda::lie_alike(to, g, v), log);
    }
    out.store();
  });
}

}  // namespace loom
