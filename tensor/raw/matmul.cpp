// Matrix products by torch.matmul's rules, and the linear layer as one product.
#include <utility>

#include <loom/tensor/raw/operand.h>

namespace loom::raw {

namespace {

// y = a @ b + beta * y + bias. With nothing to sum over, the product is zero.
void multiply(const View& y, const View& a, const View& b, const View& bias, double beta = 0) {
  if (y.numel() == 0) return;
  if (a.shape.back() > 0)
    accelerator(y.device).gemm({.c = y, .a = a, .b = b, .bias = bias, .beta = beta});
  else if (beta == 1)
    return;
  else if (bias.data == nullptr)
    accelerator(y.device).fill(y, int64_t{0});
  else
    accelerator(y.device).copy(y, broadcast(bias, y.shape));
}

// a [.., K] times b [K, N] as one product of all rows; `a` is copied where its rows do not lie evenly. y is dense.
void multiply_rows(const Tensor& y, const Tensor& a, const View& b, const View& bias) {
  if (y.numel() == 0) return;
  const int64_t k = b.shape[0], n = b.shape[1], rows = y.numel() / n;
  const View out = view_over(View(y).data, y.dtype(), {rows, n}, y.device());
  if (a.is_contiguous())
    multiply(out, view_over(View(a).data, a.dtype(), {rows, k}, a.device()), b, bias);
  else
    multiply(out, reshape(a, {rows, k}), b, bias);
}

void check_inner(const Tensor& a, const Tensor& b) {
  check(a.dim() > 0 && b.dim() > 0, "matmul: both operands need a dimension, got shapes ", a.shape(), " and ",
        b.shape());
  const int64_t inner_a = a.shape().back(), inner_b = b.dim() == 1 ? b.shape()[0] : b.shape()[b.dim() - 2];
  check(inner_a == inner_b, "matmul: shapes ", a.shape(), " and ", b.shape(),
        " do not fit: the last dimension of the first (", inner_a, ") must equal the ",
        b.dim() == 1 ? "only one" : "second-to-last", " of the second (", inner_b, ")");
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b) {
  check_inner(a, b);
  check_same_device("matmul", a, b);
  check_same_dtype("matmul", a, b);
  check_floating("matmul", a);
  const Tensor left = a.dim() == 1 ? unsqueeze(a, 0) : a, right = b.dim() == 1 ? unsqueeze(b, 1) : b;
  const int64_t rows = left.shape()[left.dim() - 2], columns = right.shape().back();
  const Dims batch = broadcast_shapes("matmul: batch", batch_dims(left.shape()), batch_dims(right.shape()));
  const Dims full = with_matrix(batch, rows, columns);
  Dims shape = batch;
  if (a.dim() > 1) shape.push_back(rows);
  if (b.dim() > 1) shape.push_back(columns);
  Tensor y = uninitialized("matmul", shape, a.dtype(), a.device());
  if (right.dim() == 2 && left.dim() > 2) {
    multiply_rows(y, left, right, {});
    return y;
  }
  View out = y;
  out.shape = full;
  out.strides = row_major_strides(full);
  multiply(out, broadcast(left, with_matrix(batch, rows, left.shape().back())),
           broadcast(right, with_matrix(batch, right.shape()[right.dim() - 2], columns)), {});
  return y;
}

void matmul_into(const Tensor& y, const Tensor& a, const Tensor& b, bool accumulate) {
  check(a.dim() == 2 && b.dim() == 2 && y.shape() == Dims{a.shape()[0], b.shape()[1]}, "matmul: shapes ", a.shape(),
        " and ", b.shape(), " do not give one of shape ", y.shape());
  check_inner(a, b);
  check_same_dtype("matmul", a, b);
  if (y.dtype() != DType::f32 || (a.dtype() != DType::f16 && a.dtype() != DType::bf16))
    check_same_dtype("matmul", y, a);
  check_writable("matmul", y);
  y.storage()->bump_version();
  multiply(y, a, b, {}, accumulate ? 1 : 0);
}

void check_linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  check(weight.dim() == 2, "linear: weight must be [out, in], got shape ", weight.shape());
  check(x.dim() > 0, "linear: the input has no dimension, weight ", weight.shape(), " expects [.., in]");
  const int64_t in = weight.shape()[1], out = weight.shape()[0];
  check(x.shape().back() == in, "linear: the input of shape ", x.shape(), " has ", x.shape().back(),
        " features, weight ", weight.shape(), " expects ", in);
  check_same_device("linear", x, weight);
  check_same_dtype("linear", x, weight);
  check_floating("linear", x);
  if (!bias.defined()) return;
  check(bias.shape() == Dims{out}, "linear: bias must be [", out, "], got shape ", bias.shape());
  check_same_device("linear", x, bias);
  check_same_dtype("linear", x, bias);
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  check_linear(x, weight, bias);
  Dims shape = x.shape();
  shape.back() = weight.size(0);
  Tensor y = uninitialized("linear", shape, x.dtype(), x.device());
  View turned = weight;
  std::swap(turned.shape[0], turned.shape[1]);
  std::swap(turned.strides[0], turned.strides[1]);
  multiply_rows(y, x, turned, bias.defined() ? View(bias) : View());
  return y;
}

}  // namespace loom::raw
