// What is still to be written.
#include <loom/accelerators/cuda/cuda.h>

namespace loom {

void Cuda::reduce(Reduce, const View&, const View&) { fail("reduce: not implemented on cuda"); }
void Cuda::arg_reduce(ArgReduce, const View&, const View&, const View&, int) {
  fail("arg_reduce: not implemented on cuda");
}
void Cuda::cumulative(Cumulative, const View&, const View&, int) { fail("cumulative: not implemented on cuda"); }
void Cuda::sort(const View&, const View&, const View&, int, bool) { fail("sort: not implemented on cuda"); }
void Cuda::max_pool2d(const View&, const View&, const View&, const PoolGeometry&) {
  fail("max_pool2d: not implemented on cuda");
}
void Cuda::max_pool2d_grad(const View&, const View&, const View&, const PoolGeometry&) {
  fail("max_pool2d_grad: not implemented on cuda");
}
void Cuda::avg_pool2d(const View&, const View&, const PoolGeometry&) { fail("avg_pool2d: not implemented on cuda"); }
void Cuda::avg_pool2d_grad(const View&, const View&, const PoolGeometry&) {
  fail("avg_pool2d_grad: not implemented on cuda");
}
void Cuda::softmax(const View&, const View&, int, bool) { fail("softmax: not implemented on cuda"); }
void Cuda::softmax_grad(const View&, const View&, const View&, int, bool) {
  fail("softmax_grad: not implemented on cuda");
}
void Cuda::cross_entropy(const View&, const View&, const View&, const View&, const CrossEntropy&) {
  fail("cross_entropy: not implemented on cuda");
}
void Cuda::cross_entropy_grad(const View&, const View&, const View&, const View&, const View&, const CrossEntropy&) {
  fail("cross_entropy_grad: not implemented on cuda");
}
void Cuda::layer_norm(const View&, const View&, const View&, const View&, const View&, const View&, double, bool,
                      int64_t) {
  fail("layer_norm: not implemented on cuda");
}
void Cuda::layer_norm_grad(const View&, const View&, const View&, const View&, const View&, const View&, const View&,
                           const View&, bool, int64_t) {
  fail("layer_norm_grad: not implemented on cuda");
}
void Cuda::batch_statistics(const View&, const View&, const View&) {
  fail("batch_statistics: not implemented on cuda");
}
void Cuda::batch_norm(const View&, const View&, const View&, const View&, const View&, const View&, double) {
  fail("batch_norm: not implemented on cuda");
}
void Cuda::batch_norm_grad(const View&, const View&, const View&, const View&, const View&, const View&, const View&,
                           const View&, double, bool) {
  fail("batch_norm_grad: not implemented on cuda");
}
void Cuda::index_select(const View&, const View&, const View&, int) { fail("index_select: not implemented on cuda"); }
void Cuda::index_add(const View&, const View&, const View&, int) { fail("index_add: not implemented on cuda"); }
void Cuda::gather(const View&, const View&, const View&, int) { fail("gather: not implemented on cuda"); }
void Cuda::scatter(Scatter, const View&, const View&, const View&, int) { fail("scatter: not implemented on cuda"); }
void Cuda::random(Random, const View&, double, double, const Philox&) { fail("random: not implemented on cuda"); }
void Cuda::dropout(const View&, const View&, const View&, double, double, const Philox&) {
  fail("dropout: not implemented on cuda");
}
void Cuda::dropout_grad(const View&, const View&, const View&, double) {
  fail("dropout_grad: not implemented on cuda");
}
void Cuda::recurrent_cell(const View&, const View&, const View&, const RecurrentStep&) {
  fail("recurrent_cell: not implemented on cuda");
}
void Cuda::recurrent_cell_grad(const View&, const View&, const View&, const View&, const RecurrentGrad&) {
  fail("recurrent_cell_grad: not implemented on cuda");
}
void Cuda::sgd(std::span<const UpdatePiece>, const SgdStep&) { fail("sgd: not implemented on cuda"); }
void Cuda::adam(std::span<const UpdatePiece>, const AdamStep&) { fail("adam: not implemented on cuda"); }
void Cuda::adagrad(std::span<const UpdatePiece>, const AdagradStep&) { fail("adagrad: not implemented on cuda"); }
void Cuda::rmsprop(std::span<const UpdatePiece>, const RmspropStep&) { fail("rmsprop: not implemented on cuda"); }
void Cuda::unscale(std::span<const UpdatePiece>, const View&, const View&) { fail("unscale: not implemented on cuda"); }

}  // namespace loom
