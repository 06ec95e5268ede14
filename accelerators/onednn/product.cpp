// Products: strides of whatever is a matrix by rows or by columns, batches, scales and biases as post-operations.
#include <algorithm>
#include <bit>
#include <utility>

#include <loom/accelerators/onednn.h>
#include <loom/accelerators/onednn/plan.h>
#include <loom/accelerators/profile.h>

namespace loom {
using namespace onednn;

namespace {

constexpr int64_t most_parts = 256;
constexpr int64_t least_side = 32, least_depth = 8;  // of c, of its sums: slim matrices have kernels of our own

View transposed(View x) {
  const int rows = x.rank() - 2, columns = x.rank() - 1;
  std::swap(x.shape[rows], x.shape[columns]);
  std::swap(x.strides[rows], x.strides[columns]);
  return x;
}

bool lies_by_rows(const View& x) {
  const int rows = x.rank() - 2;
  return x.strides[rows + 1] == 1 && x.strides[rows] >= x.shape[rows + 1];
}
bool is_matrix(const View& x) { return lies_by_rows(x) || lies_by_rows(transposed(x)); }

// What is repeated counts once.
View without_repeats(View x, int dims) {
  for (int d = 0; d < dims; ++d)
    if (x.strides[d] == 0) x.shape[d] = 1;
  return x;
}

View with_rank(View x, int rank) {
  while (x.rank() < rank) {
    x.shape.insert(0, 1);
    x.strides.insert(0, 0);
  }
  return x;
}

bool suits(const Gemm& g) {
  const int64_t m = g.a.shape[g.a.rank() - 2], k = g.a.shape.back(), n = g.b.shape.back();
  const bool pays = std::min(m, n) >= least_side && k >= least_depth && 2 * g.c.numel() * k >= limits().least_flops;
  if (!pays && !(limits().all && k > 0)) return false;
  if (!type_of(g.a.dtype) || !type_of(g.c.dtype) || !is_matrix(g.a) || !is_matrix(g.b) || !is_matrix(g.c)) return false;
  return std::all_of(g.c.strides.begin(), g.c.strides.end(), [](int64_t stride) { return stride > 0; });
}

// The same product with c by rows, operands without repeats and a bias of c's rank.
Gemm arranged(Gemm g) {
  const int rank = g.c.rank();
  g.a = without_repeats(g.a, rank - 2);
  g.b = without_repeats(g.b, rank - 2);
  if (g.bias.data != nullptr) g.bias = without_repeats(with_rank(g.bias, rank), rank);
  if (lies_by_rows(g.c)) return g;
  const View a = transposed(g.b), b = transposed(g.a);
  return {transposed(g.c), a, b, g.bias.data != nullptr ? transposed(g.bias) : g.bias, g.alpha, g.beta};
}

bool is_row(const View& bias) { return bias.shape.back() == bias.numel() && bias.strides.back() == 1; }

// A row for all rows, or as much as c: the library looks at no stride of what a post-operation reads.
bool suits_bias(const Gemm& g) {
  if (g.bias.data == nullptr) return true;
  if (!type_of(g.bias.dtype)) return false;
  return is_row(g.bias) ? g.bias.shape.back() == g.c.shape.back()
                        : g.bias.shape == g.c.shape && g.bias.is_contiguous() && g.c.is_contiguous();
}

// Into how many ranges each dim of c is cut: whole matrices first, then tiles as square as can be. The number of
// threads has no say, so that bits do not depend on it.
Dims parts_of(const Gemm& g) {
  const int rank = g.c.rank();
  const auto flops = static_cast<uint64_t>(2 * g.c.numel() * g.a.shape.back());
  int64_t left =
      std::clamp<int64_t>(std::bit_floor(flops / static_cast<uint64_t>(limits().flops_of_a_part)), 1, most_parts);
  Dims parts = Dims::filled(rank, 1);
  for (int d = 0; d < rank - 2; ++d) {
    parts[d] = std::min(left, g.c.shape[d]);
    left = std::bit_floor(static_cast<uint64_t>(left / parts[d]));
  }
  const auto side = [&](int d) { return g.c.shape[d] / parts[d]; };
  const bool whole_rows = g.bias.data != nullptr && !is_row(g.bias);  // pieces of the bias must lie whole, too
  for (; left > 1; left /= 2) {
    const int d = whole_rows || side(rank - 2) >= side(rank - 1) ? rank - 2 : rank - 1;
    if (side(d) < 2 * limits().side_of_a_part) break;
    parts[d] *= 2;
  }
  return parts;
}

bool add(Jobs& jobs, const Gemm& g) {
  std::vector<Operand> operands = {
      {DNNL_ARG_SRC, g.a}, {DNNL_ARG_WEIGHTS, g.b}, {DNNL_ARG_DST, g.c, Operand::Layout::given, true}};
  const auto alpha = static_cast<float>(g.alpha), beta = static_cast<float>(g.beta);
  const bool adds = g.bias.data != nullptr, plain = adds && alpha == 1 && is_row(g.bias);
  dnnl::post_ops after;
  if (alpha != 1) append_scale(after, alpha);
  if (beta != 0) after.append_sum(beta);
  if (adds && !plain) {
    operands.push_back({DNNL_ARG_ATTR_MULTIPLE_POST_OP(after.len()) | DNNL_ARG_SRC_1, g.bias});
    after.append_binary(dnnl::algorithm::binary_add, desc_of(g.bias));
  }
  if (plain) operands.push_back({DNNL_ARG_BIAS, g.bias});
  dnnl::primitive_attr attr;
  attr.set_post_ops(after);
  return jobs.add({0, std::bit_cast<int32_t>(alpha), std::bit_cast<int32_t>(beta)}, std::move(operands), attr,
                  [&](const dnnl::primitive_attr& a) {
                    const dnnl::memory::desc src = desc_of(g.a), weights = desc_of(g.b), dst = desc_of(g.c);
                    return plain ? described<dnnl::matmul>(a, src, weights, desc_of(g.bias), dst)
                                 : described<dnnl::matmul>(a, src, weights, dst);
                  });
}

// The jobs of dim d and those after it.
bool add_parts(Jobs& jobs, const Gemm& g, const Dims& parts, int d) {
  const int rank = g.c.rank();
  if (d == rank) return add(jobs, g);
  const auto part = [d](const View& x, Range range) { return x.shape[d] == 1 ? x : narrowed(x, d, range); };
  for (const Range range : cut(g.c.shape[d], parts[d], d < rank - 2 ? 1 : 16)) {
    Gemm piece = g;
    piece.c = narrowed(g.c, d, range);
    if (d != rank - 1) piece.a = part(g.a, range);
    if (d != rank - 2) piece.b = part(g.b, range);
    if (g.bias.data != nullptr) piece.bias = part(g.bias, range);
    if (!add_parts(jobs, piece, parts, d + 1)) return false;
  }
  return true;
}

}  // namespace

bool onednn::gemm(const Gemm& args) try {
  if (!in_use() || !suits(args)) return false;
  const Gemm g = arranged(args);
  Jobs jobs;
  if (!suits_bias(g) || !add_parts(jobs, g, parts_of(g), 0)) return false;
  const profile::Range range(Activity::op, "onednn matmul");
  jobs.run();
  return true;
} catch (const dnnl::error& error) {
  fail("oneDNN: ", error.what());
}

}  // namespace loom
