// Matrix products: Eigen's single-threaded kernel on slabs that we hand to threads.
#define EIGEN_DONT_PARALLELIZE  // one thread pool per process: ours
#include <Eigen/Core>
#include <algorithm>

#include <loom/accelerators/cpu/gemm.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/threads.h>

namespace loom {
using namespace cpu;

namespace {

template <class T, int a_order, int b_order>
void eigen_product(const MatrixRef<T>& c, const MatrixRef<const T>& a, const MatrixRef<const T>& b, T alpha) {
  using Stride = Eigen::OuterStride<>;
  using A = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, a_order>;
  using B = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, b_order>;
  using C = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const auto outer = [](const auto& m, int order) { return order == Eigen::RowMajor ? m.row_stride : m.column_stride; };
  const Eigen::Map<const A, Eigen::Unaligned, Stride> a_map(a.data, a.rows, a.columns, Stride(outer(a, a_order)));
  const Eigen::Map<const B, Eigen::Unaligned, Stride> b_map(b.data, b.rows, b.columns, Stride(outer(b, b_order)));
  Eigen::Map<C, Eigen::Unaligned, Stride> c_map(c.data, c.rows, c.columns, Stride(c.row_stride));
  c_map.noalias() += (alpha * a_map) * b_map;  // Eigen takes its matrix-vector kernel for one row or column
}

template <class T>
void product(const MatrixRef<T>& c, const MatrixRef<const T>& a, const MatrixRef<const T>& b, T alpha) {
  constexpr int row = Eigen::RowMajor, column = Eigen::ColMajor;
  const bool a_row = a.column_stride == 1, b_row = b.column_stride == 1;
  if (a_row && b_row) return eigen_product<T, row, row>(c, a, b, alpha);
  if (a_row) return eigen_product<T, row, column>(c, a, b, alpha);
  if (b_row) return eigen_product<T, column, row>(c, a, b, alpha);
  eigen_product<T, column, column>(c, a, b, alpha);
}

// A batch of matrices of T with one stride of 1.
template <class T>
struct Operand {
  Scratch<T> packed;
  const T* data = nullptr;
  Dims strides;

  explicit Operand(const View& x) : data(x.as<const T>()), strides(x.strides) {
    const int row = x.rank() - 2, column = x.rank() - 1;
    if (x.shape[column] == 1)
      strides[column] = 1;
    else if (x.shape[row] == 1)
      strides[row] = 1;
    if (x.dtype == dtype_of<T>() && (strides[row] == 1 || strides[column] == 1)) return;
    View distinct = x;  // matrices repeated by broadcasting are packed once
    for (int d = 0; d < row; ++d)
      if (x.strides[d] == 0) distinct.shape[d] = 1;
    packed = Scratch<T>(distinct.numel());
    const View dense = view_over(packed.data(), dtype_of<T>(), distinct.shape);
    cpu::self().copy(dense, distinct);
    data = packed.data();
    strides = dense.strides;
    for (int d = 0; d < row; ++d)
      if (distinct.shape[d] == 1) strides[d] = 0;
  }
  MatrixRef<const T> matrix(int64_t offset, int64_t rows, int64_t columns) const {
    return {data + offset, rows, columns, strides[strides.size() - 2], strides.back()};
  }
};

int64_t batch_offset(int64_t batch, const Dims& shape, const Dims& strides) {
  int64_t offset = 0;
  for (int d = shape.size() - 3; d >= 0; --d) {
    offset += batch % shape[d] * strides[d];
    batch /= shape[d];
  }
  return offset;
}

// Merges dim d into d + 1 where both are one run of equal steps.
bool can_merge(const View& x, int d) {
  return x.shape[d] == 1 || x.shape[d + 1] == 1 || x.strides[d] == x.strides[d + 1] * x.shape[d + 1];
}
void merge(View& x, int d) {
  if (x.shape[d + 1] == 1) x.strides[d + 1] = x.strides[d];
  x.shape[d + 1] *= x.shape[d];
  x.shape.erase(d);
  x.strides.erase(d);
}

// A batch that shares one b is one tall product: [B, M, K] @ [K, N] = [B * M, K] @ [K, N].
Gemm flattened(Gemm args) {
  for (int d = args.c.rank() - 3; d >= 0; --d) {
    if (args.b.strides[d] != 0 && args.b.shape[d] != 1) break;
    if (!can_merge(args.a, d) || !can_merge(args.c, d)) break;
    merge(args.a, d);
    merge(args.c, d);
    args.b.shape.erase(d);
    args.b.strides.erase(d);
  }
  return args;
}

// c = beta * c + bias
template <class T>
void prepare(const MatrixRef<T>& c, const T* bias, T beta) {
  for (int64_t i = 0; i < c.rows; ++i) {
    T* row = c.data + i * c.row_stride;
    if (beta == T(0)) {
      if (bias != nullptr)
        std::copy_n(bias, c.columns, row);
      else
        std::fill_n(row, c.columns, T(0));
    } else {
      for (int64_t j = 0; j < c.columns; ++j) row[j] = beta * row[j] + (bias != nullptr ? bias[j] : T(0));
    }
  }
}

// A matrix's rows or columns from begin to end.
template <class T>
MatrixRef<T> slab(MatrixRef<T> m, bool of_rows, int64_t begin, int64_t end) {
  m.data += begin * (of_rows ? m.row_stride : m.column_stride);
  (of_rows ? m.rows : m.columns) = end - begin;
  return m;
}

template <class T>
void batched(const Gemm& args, const View& c) {
  const Operand<T> a(args.a), b(args.b);
  const DenseInput<T> bias(args.bias);
  const int rank = c.rank();
  const int64_t m = c.shape[rank - 2], n = c.shape[rank - 1], k = args.a.shape[rank - 1], batches = c.numel() / (m * n);
  const T alpha = static_cast<T>(args.alpha), beta = static_cast<T>(args.beta);

  // Work is cut into units of whole matrices, or, where these are too few, slabs of the longer side. 24 columns and 8
  // rows are multiples of what Eigen's kernel computes at once.
  const bool of_rows = m >= n;
  const int64_t length = of_rows ? m : n;
  const int64_t unit = batches >= 4 * num_threads() ? length : of_rows ? 8 : 24;
  const int64_t units = (length + unit - 1) / unit;
  const int64_t flops = 2 * unit * std::min(m, n) * std::max<int64_t>(k, 1);
  parallel_for(batches * units, grain_of(flops, parallel_flops), [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t batch = begin / units, first = begin % units, last = std::min(units, first + end - begin);
      const int64_t from = first * unit, to = std::min(length, last * unit);
      const MatrixRef<T> c_all{c.as<T>() + batch_offset(batch, c.shape, c.strides), m, n, c.strides[rank - 2], 1};
      const auto a_all = a.matrix(batch_offset(batch, c.shape, a.strides), m, k);
      const auto b_all = b.matrix(batch_offset(batch, c.shape, b.strides), k, n);
      const MatrixRef<T> c_slab = slab(c_all, of_rows, from, to);
      prepare(c_slab, bias.data() == nullptr || of_rows ? bias.data() : bias.data() + from, beta);
      if (k > 0)
        product<T>(c_slab, of_rows ? slab(a_all, true, from, to) : a_all,
                   of_rows ? b_all : slab(b_all, false, from, to), alpha);
      begin += last - first;
    }
  });
}

// Products run in T; a c of another dtype, or without adjoining columns, is written through a temporary.
template <class T>
void gemm_in(const Gemm& args) {
  const View& c = args.c;
  if (c.dtype == dtype_of<T>() && (c.shape.back() == 1 || c.strides.back() == 1)) return batched<T>(args, c);
  const DenseOutput<T> out(c, args.beta != 0);
  batched<T>(args, view_over(out.data(), dtype_of<T>(), c.shape));
  out.store();
}

}  // namespace

void cpu::multiply_add(const MatrixRef<float>& c, const MatrixRef<const float>& a, const MatrixRef<const float>& b,
                       float alpha) {
  product(c, a, b, alpha);
}
void cpu::multiply_add(const MatrixRef<double>& c, const MatrixRef<const double>& a, const MatrixRef<const double>& b,
                       double alpha) {
  product(c, a, b, alpha);
}

void Cpu::gemm(const Gemm& args) {
  with_floating("gemm", args.c.dtype, [&]<class T> {
    if (args.c.numel() > 0) gemm_in<compute_type<T>>(flattened(args));
  });
}

}  // namespace loom
