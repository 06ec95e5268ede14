// Matrix products over batches; which kernel multiplies a dtype.
#include <loom/accelerators/cpu/gemm.h>

#include <algorithm>

#include <loom/accelerators/cpu/gemm_dot.h>
#include <loom/accelerators/cpu/gemm_product.h>
#include <loom/accelerators/cpu/gemm_shallow.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/onednn.h>
#include <loom/accelerators/threads.h>

namespace loom {
using namespace cpu;

namespace {

// In the calling thread and, where the product is large enough, in others too; c must not be empty.
template <class E, class S, class T, class C>
void multiply(const ProductArgs<S, T, C>& p) {
  using namespace product_detail;
  constexpr bool multiplies_as_stored = has_tile_kernel<E, C> && (is_pair<E> || std::is_same_v<E, S>);
  if (is_vector_product(p)) {
    const int64_t flops = 2 * vector_lines<T> * p.c.rows * std::max<int64_t>(p.a.columns, 1);
    return parallel_for(ceil_div(p.c.columns, vector_lines<T>), grain_of(flops, parallel_flops / 4),
                        [&](int64_t begin, int64_t end) {
                          vector_products(p, begin * vector_lines<T>, std::min(p.c.columns, end * vector_lines<T>));
                        });
  }
  if (p.c.columns <= 3 && is_vector_product(transposed(p))) return multiply<E>(transposed(p));
  if constexpr (multiplies_as_stored)
    if (is_dot_product<E>(p)) {
      if (p.c.rows < p.c.columns) return multiply<E>(transposed(p));
      const int64_t flops = 2 * lanes<T> * p.c.columns * p.a.columns;
      return parallel_for(ceil_div(p.c.rows, lanes<T>), grain_of(flops, parallel_flops),
                          [&](int64_t begin, int64_t end) {
                            dot_products<E>(p, begin * lanes<T>, std::min(p.c.rows, end * lanes<T>));
                          });
    }
  if (p.c.column_stride != 1 && p.c.row_stride == 1 && p.c.rows > 1) return multiply<E>(transposed(p));
  if constexpr (multiplies_as_stored)
    if (is_shallow_product<E>(p)) return shallow_product<E>(p);
  const int64_t blocks = Product<E, S, C>::k_blocks(p);
  const bool alone = num_threads() == 1;
  if (p.c.rows >= p.c.columns) return Product<E, S, C>(p, blocks, alone).run();
  const int64_t unit = p.group_columns > 0 ? p.group_columns : int64_t{tile_vectors} * lanes<T>, n = p.c.columns;
  const int64_t flops = 2 * unit * p.c.rows * std::max<int64_t>(p.a.columns, 1);
  parallel_for(ceil_div(n, unit), grain_of(flops, parallel_flops), [&](int64_t begin, int64_t end) {
    const int64_t from = begin * unit, to = std::min(n, end * unit);
    ProductArgs<S, T, C> part = p;
    part.b.data += p.group_columns > 0 ? begin * p.group_stride : from * p.b.column_stride;
    part.c.data += from * p.c.column_stride;
    part.b.columns = part.c.columns = to - from;
    if (p.bias != nullptr) part.bias += from * p.bias_column;
    Product<E, S, C>(part, blocks, alone || to - from < n).run();
  });
}

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
  const bool each = args.bias.rank() > 1;
  for (int d = args.c.rank() - 3; d >= 0; --d) {
    if (args.b.strides[d] != 0 && args.b.shape[d] != 1) break;
    if (!can_merge(args.a, d) || !can_merge(args.c, d) || (each && !can_merge(args.bias, d))) break;
    merge(args.a, d);
    merge(args.c, d);
    if (each) merge(args.bias, d);
    args.b.shape.erase(d);
    args.b.strides.erase(d);
  }
  return args;
}

template <class T>
MatrixRef<T> matrix(const View& x, int64_t offset) {
  const int row = x.rank() - 2, column = x.rank() - 1;
  return {x.as<T>() + offset, x.shape[row], x.shape[column], x.strides[row], x.strides[column]};
}

// What is added, as tiles read it: a row, or as much as c.
template <class T>
class Bias {
 public:
  explicit Bias(const View& x)
      : given_(x),
        lies_well_(x.rank() > 1 && x.dtype == dtype_of<T>() && x.strides.back() == 1),
        dense_(lies_well_ ? nothing() : x) {}
  template <class S, class C>
  void join(ProductArgs<S, T, C>& p, int64_t batch) const {
    p.bias = lies_well_ ? given_.as<const T>() : dense_.data();
    if (given_.rank() < 2) return;
    const Dims strides = lies_well_ ? given_.strides : row_major_strides(given_.shape);
    p.bias += batch_offset(batch, given_.shape, strides);
    p.bias_row = strides[given_.rank() - 2];
  }

 private:
  static const View& nothing() {
    static const View none;
    return none;
  }

  const View& given_;
  bool lies_well_;
  DenseInput<T> dense_;
};

// A batch that shares one a, whose products lie side by side in c, is one wide product whose b lies in groups of
// columns: a [M, K] @ [B, K, N] = [M, B * N]. What is added lies as c does.
template <class E, class S, class C>
bool multiplied_at_once(const Gemm& args) {
  using T = SumOf<E>;
  const View &a = args.a, &b = args.b, &c = args.c, &bias = args.bias;
  if (c.rank() != 3 || a.strides[0] != 0 || c.strides[0] != c.shape[2]) return false;
  const bool adds = bias.data != nullptr;
  if (adds &&
      (bias.rank() != 3 || bias.dtype != dtype_of<T>() || bias.strides[2] != 1 || bias.strides[0] != c.shape[2]))
    return false;
  ProductArgs<S, T, C> p{.a = matrix<const S>(a, 0),
                         .b = matrix<const S>(b, 0),
                         .c = matrix<C>(c, 0),
                         .alpha = static_cast<T>(args.alpha),
                         .beta = static_cast<T>(args.beta),
                         .group_columns = c.shape[2],
                         .group_stride = b.strides[0]};
  p.b.columns = p.c.columns = c.shape[0] * c.shape[2];
  if (adds) {
    p.bias = bias.as<const T>();
    p.bias_row = bias.strides[1];
  }
  if (!product_detail::Product<E, S, C>::takes_groups(p)) return false;
  multiply<E>(p);
  return true;
}

// Tiles multiply E; a and b are of S, c of C.
template <class E, class S, class C>
void batched(const Gemm& args) {
  using T = SumOf<E>;
  if (multiplied_at_once<E, S, C>(args)) return;
  const View& c = args.c;
  const Bias<T> bias(args.bias);
  const int64_t m = c.shape[c.rank() - 2], n = c.shape.back(), k = args.a.shape.back(), batches = c.numel() / (m * n);
  const auto one = [&](int64_t batch) {
    const auto at = [&](const View& x) { return batch_offset(batch, c.shape, x.strides); };
    ProductArgs<S, T, C> p{.a = matrix<const S>(args.a, at(args.a)),
                           .b = matrix<const S>(args.b, at(args.b)),
                           .c = matrix<C>(c, at(c)),
                           .alpha = static_cast<T>(args.alpha),
                           .beta = static_cast<T>(args.beta)};
    bias.join(p, batch);
    multiply<E>(p);
  };
  // Whole matrices are what threads share, unless these are too few to go round.
  if (batches < 4 * num_threads() && batches % num_threads() != 0) {
    for (int64_t batch = 0; batch < batches; ++batch) one(batch);
    return;
  }
  parallel_for(batches, grain_of(2 * m * n * std::max<int64_t>(k, 1), parallel_flops), [&](int64_t begin, int64_t end) {
    for (int64_t batch = begin; batch < end; ++batch) one(batch);
  });
}

template <class S, class C>
void gemm_of(const Gemm& args) {
  if constexpr (std::is_same_v<S, BFloat16> && may_have_pair_products)
    if (has_pair_products()) return batched<BFloat16Pair, S, C>(args);
  batched<compute_type<S>, S, C>(args);
}

}  // namespace

void cpu::product(const ProductArgs<float, float, float>& p) { multiply<float>(p); }
void cpu::product(const ProductArgs<double, double, double>& p) { multiply<double>(p); }
void cpu::product(const ProductArgs<BFloat16, float, BFloat16>& p) {
  if constexpr (may_have_pair_products) multiply<BFloat16Pair>(p);
}
void cpu::product(const ProductArgs<BFloat16, float, float>& p) {
  if constexpr (may_have_pair_products) multiply<BFloat16Pair>(p);
}

void Cpu::gemm(const Gemm& args) {
  with_floating("gemm", args.a.dtype, [&]<class S> {
    if (args.c.numel() == 0) return;
    const Gemm flat = flattened(args);
    if (onednn::gemm(flat)) return;
    if (args.c.dtype == args.a.dtype) return gemm_of<S, S>(flat);
    if constexpr (sizeof(S) == 2) gemm_of<S, float>(flat);
  });
}

}  // namespace loom
