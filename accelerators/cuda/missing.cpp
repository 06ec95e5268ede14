// What is still to be written.
#include <loom/accelerators/cuda/cuda.h>

namespace loom {

void Cuda::gemm(const Gemm&) { fail("gemm: not implemented on cuda"); }
void Cuda::conv2d(const View&, const View&, const View&, const View&, const ConvGeometry&) {
  fail("conv2d: not implemented on cuda");
}
void Cuda::conv2d_grad_input(const View&, const View&, const View&, const ConvGeometry&) {
  fail("conv2d_grad_input: not implemented on cuda");
}
void Cuda::conv2d_grad_weight(const View&, const View&, const View&, const ConvGeometry&) {
  fail("conv2d_grad_weight: not implemented on cuda");
}
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
void Cuda::attention(const View&, const View&, const Attention&) { fail("attention: not implemented on cuda"); }
void Cuda::attention_grad(const View&, const View&, const View&, const View&, const View&, const View&,
                          const Attention&) {
  fail("attention_grad: not implemented on cuda");
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
