// The kernels of the CPU, compiled once for each instruction set. Member functions are defined one family a file.
#pragma once

#include <loom/accelerators/cpu_memory.h>

namespace loom {

class Cpu final : public CpuMemory {
 public:
  void copy(const View& y, const View& x) override;
  void fill(const View& y, double value) override;
  void fill(const View& y, int64_t value) override;
  void arange(const View& y, double start, double step) override;
  void unary(Unary op, const View& y, const View& x, double p, double q) override;
  void binary(Binary op, const View& y, const View& a, const View& b) override;
  void where(const View& y, const View& condition, const View& a, const View& b) override;
  void reduce(Reduce op, const View& y, const View& x) override;
  void arg_reduce(ArgReduce op, const View& values, const View& index, const View& x, int dim) override;
  void cumulative(Cumulative op, const View& y, const View& x, int dim) override;
  void sort(const View& values, const View& index, const View& x, int dim, bool descending) override;
  void gemm(const Gemm& args) override;
  void conv2d(const View& y, const View& x, const View& w, const View& bias, const ConvGeometry& g) override;
  void conv2d_grad_input(const View& dx, const View& dy, const View& w, const ConvGeometry& g) override;
  void conv2d_grad_weight(const View& dw, const View& dy, const View& x, const ConvGeometry& g) override;
  void max_pool2d(const View& y, const View& index, const View& x, const PoolGeometry& g) override;
  void max_pool2d_grad(const View& dx, const View& dy, const View& index, const PoolGeometry& g) override;
  void avg_pool2d(const View& y, const View& x, const PoolGeometry& g) override;
  void avg_pool2d_grad(const View& dx, const View& dy, const PoolGeometry& g) override;
  void softmax(const View& y, const View& x, int dim, bool log) override;
  void softmax_grad(const View& dx, const View& dy, const View& y, int dim, bool log) override;
  void cross_entropy(const View& loss, const View& lse, const View& logits, const View& target,
                     const CrossEntropy& options) override;
  void cross_entropy_grad(const View& dlogits, const View& g, const View& lse, const View& logits, const View& target,
                          const CrossEntropy& options) override;
  void layer_norm(const View& y, const View& mean, const View& rstd, const View& x, const View& w, const View& b,
                  double eps, bool rms, int64_t spread) override;
  void layer_norm_grad(const View& dx, const View& dw, const View& db, const View& dy, const View& x, const View& w,
                       const View& mean, const View& rstd, bool rms, int64_t spread) override;
  void batch_statistics(const View& mean, const View& var, const View& x) override;
  void batch_norm(const View& y, const View& x, const View& mean, const View& var, const View& w, const View& b,
                  double eps) override;
  void batch_norm_grad(const View& dx, const View& dw, const View& db, const View& dy, const View& x, const View& mean,
                       const View& var, const View& w, double eps, bool training) override;
  void batch_norm_relu(const View& y, const View& x, const View& added, const View& mean, const View& var,
                       const View& w, const View& b, double eps) override;
  void batch_norm_relu_grad(const View& dx, const View& d_added, const View& dw, const View& db, const View& dy,
                            const View& y, const View& x, const View& mean, const View& var, const View& w, double eps,
                            bool training) override;
  void index_select(const View& y, const View& x, const View& index, int dim) override;
  void index_add(const View& y, const View& x, const View& index, int dim) override;
  void gather(const View& y, const View& x, const View& index, int dim) override;
  void scatter(Scatter mode, const View& y, const View& x, const View& index, int dim) override;
  std::unique_ptr<Positions> positions(const View& x) override;
  void random(Random kind, const View& y, double a, double b, const Philox& state) override;
  void dropout(const View& y, const View& mask, const View& x, uint32_t kept, double scale,
               const Philox& state) override;
  void dropout_grad(const View& dx, const View& g, const View& mask, double scale) override;
  void attention(const View& y, const View& lse, const Attention& a) override;
  void attention_grad(const View& dq, const View& dk, const View& dv, const View& dy, const View& y, const View& lse,
                      const Attention& a) override;
  void recurrent_cell(const View& h, const View& c, const View& kept, const RecurrentStep& s) override;
  void recurrent_cell_grad(const View& d_input, const View& d_state, const View& dh_before, const View& dc_before,
                           const RecurrentGrad& s) override;
  void sgd(std::span<const UpdatePiece> pieces, const SgdStep& s) override;
  void adam(std::span<const UpdatePiece> pieces, const AdamStep& s) override;
  void adagrad(std::span<const UpdatePiece> pieces, const AdagradStep& s) override;
  void rmsprop(std::span<const UpdatePiece> pieces, const RmspropStep& s) override;
  void unscale(std::span<const UpdatePiece> pieces, const View& factor, const View& found) override;
};

namespace cpu {

// The kernels of the instruction set that the calling file is compiled for.
Cpu& self();

}  // namespace cpu

}  // namespace loom

// What a plugin hands over: its kernels.
extern "C" [[gnu::visibility("default")]] loom::Accelerator* loom_cpu_kernels();
