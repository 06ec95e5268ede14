// The operations on tensors without gradients: shapes, dtypes and broadcasting are settled here, once, and the device's
// kernel is called. Errors of shape and dtype come from here, and name the op.
//
// autograd/ wraps each of these in an op that records its derivative; user code calls those (same names, namespace
// loom).
#pragma once

#include <initializer_list>
#include <optional>
#include <string_view>
#include <vector>

#include <loom/accelerators/accelerator.h>
#include <loom/tensor/create.h>
#include <loom/tensor/tensor.h>

namespace loom::raw {

void check_same_device(std::string_view op, const Tensor& a, const Tensor& b);  // "op: tensors are on cpu and cuda:0"
void check_same_dtype(std::string_view op, const Tensor& a, const Tensor& b);
void check_floating(std::string_view op, const Tensor& x);

// Views: same memory, other shape and strides.
// `offset` counts from the start of the storage, as in PyTorch.
Tensor as_strided(const Tensor& x, const Dims& shape, const Dims& strides, int64_t offset);
Tensor alias(const Tensor& x);                                       // a new handle on the same array, without graph
std::optional<Tensor> try_view(const Tensor& x, const Dims& shape);  // none where a copy would be needed
Dims infer_shape(std::string_view op, const Dims& shape, int64_t numel);  // fills in a -1
Tensor reshape(const Tensor& x, const Dims& shape);
Tensor permute(const Tensor& x, const Dims& dims);
Tensor transpose(const Tensor& x, int dim0, int dim1);
Tensor expand(const Tensor& x, const Dims& shape);
Tensor squeeze(const Tensor& x, int dim);
Tensor unsqueeze(const Tensor& x, int dim);
Tensor slice(const Tensor& x, int dim, int64_t start, int64_t stop, int64_t step);  // 0 <= start <= stop <= size
Tensor select(const Tensor& x, int dim, int64_t index);
Tensor diagonal(const Tensor& x, int64_t offset, int dim1, int dim2);

// Images on a device that likes them so lie with their channels last, [N, H, W, C] in memory, though their shape is
// [N, C, H, W]: convolutions make them, what follows keeps them.
bool is_channels_last(const Tensor& x);  // and not row-major too
// Of undefined contents: channels last where one of `like` is and has this shape's rank, else row-major.
Tensor uninitialized_like(std::string_view op, std::initializer_list<const Tensor*> like, const Dims& shape,
                          DType dtype);

// Copies. Between devices the accelerator that is not the host's copies, dense to dense, one dtype.
Tensor contiguous(const Tensor& x);  // x itself when it is
Tensor clone(const Tensor& x);       // dense row-major copy
Tensor cast(const Tensor& x, DType dtype);
Tensor to_device(const Tensor& x, Device device, bool non_blocking = false);
// Broadcasts, converts; bumps y's version.
void copy_into(const Tensor& y, const Tensor& x, bool non_blocking = false);
void fill_into(const Tensor& y, double value);  // bumps y's version

// Elementwise, with broadcasting and promotion.
Tensor unary(Unary op, const Tensor& x, double p = 0, double q = 0);
Tensor binary(Binary op, const Tensor& a, const Tensor& b);
void unary_into(Unary op, const Tensor& x, double p = 0, double q = 0);  // in place
void binary_into(Binary op, const Tensor& a, const Tensor& b);           // a = op(a, b)
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);

// Reductions over dims (empty: all).
Tensor reduce(Reduce op, const Tensor& x, const Dims& dims, bool keepdim);
std::pair<Tensor, Tensor> arg_reduce(ArgReduce op, const Tensor& x, int dim, bool keepdim);  // values, index
Tensor cumulative(Cumulative op, const Tensor& x, int dim);
std::pair<Tensor, Tensor> sort(std::string_view op, const Tensor& x, int dim, bool descending, int64_t k);
// Sums x down to a shape that broadcasts to x's.
Tensor sum_to(const Tensor& x, const Dims& shape);

// Indexing.
Tensor index_select(const Tensor& x, int dim, const Tensor& index);
Tensor index_add(const Tensor& x, int dim, const Tensor& index, const Tensor& source);  // a copy of x, added to
Tensor gather(const Tensor& x, int dim, const Tensor& index);
Tensor scatter(Scatter mode, const Tensor& x, int dim, const Tensor& index, const Tensor& source);  // a copy of x
// The same in y's own memory; bump y's version.
void index_add_into(const Tensor& y, int dim, const Tensor& index, const Tensor& source);
void scatter_into(Scatter mode, const Tensor& y, int dim, const Tensor& index, const Tensor& source);
void masked_fill_into(const Tensor& y, const Tensor& mask, double value);
Tensor cat(const std::vector<Tensor>& tensors, int dim);
Tensor flip(const Tensor& x, const Dims& dims);
Tensor nonzero(const Tensor& x);                                 // [count, rank] i64
Tensor triangle(const Tensor& x, int64_t diagonal, bool upper);  // triu, tril

// Linear algebra and networks.
Tensor matmul(const Tensor& a, const Tensor& b);  // torch.matmul's rules for 1-d, 2-d and batched operands
// y = a @ b, or y += a @ b, for matrices of one dtype and device that fit; y of f32 also takes products of 16-bit ones.
// Bumps y's version.
void matmul_into(const Tensor& y, const Tensor& a, const Tensor& b, bool accumulate);
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias);      // x [.., in], weight [out, in]
void check_linear(const Tensor& x, const Tensor& weight, const Tensor& bias);  // throws what linear throws
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const ConvGeometry& g);
Tensor conv2d_grad_input(const Tensor& dy, const Tensor& weight, const Dims& input_shape, const ConvGeometry& g);
Tensor conv2d_grad_weight(const Tensor& dy, const Tensor& x, const Dims& weight_shape, const ConvGeometry& g);
Dims conv2d_shape(std::string_view op, const Dims& x, const Dims& weight, const ConvGeometry& g);
std::pair<Tensor, Tensor> max_pool2d(const Tensor& x, const PoolGeometry& g, bool ceil_mode);  // y, index
Tensor max_pool2d_grad(const Tensor& dy, const Tensor& index, const Dims& input_shape, const PoolGeometry& g);
Tensor avg_pool2d(const Tensor& x, const PoolGeometry& g, bool ceil_mode);
Tensor avg_pool2d_grad(const Tensor& dy, const Dims& input_shape, const PoolGeometry& g);
Tensor softmax(const Tensor& x, int dim, bool log);
Tensor softmax_grad(const Tensor& dy, const Tensor& y, int dim, bool log);

// Random.
Tensor random(Random kind, const Dims& shape, double a, double b, const TensorOptions& options, uint64_t stream = 0);
void random_into(Random kind, const Tensor& y, double a, double b, uint64_t stream = 0);

}  // namespace loom::raw
