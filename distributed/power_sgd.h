// PowerSGD (Vogels, Karimireddy, Jaggi, 2019): a gradient travels as two thin matrices, and what they miss is added to
// the next one.
//
//   M [n, m], the gradient plus the error kept from the step before, is taken for P Q^T: P = orthonormal(mean(M Q)),
//   Q = mean(M^T P). (n + m) r numbers travel instead of n m. Warm start: the next step begins with this Q.
//
// State is kept by parameter, so it does not depend on buckets, and compression may begin at any step.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <loom/distributed/comm_hook.h>

namespace loom {

struct PowerSgdOptions {
  int matrix_approximation_rank = 1;
  int64_t start_powerSGD_iter = 1000;  // plain averages before: the first steps are sensitive
  double min_compression_rate = 2;     // a matrix is compressed where that saves more than this factor
  bool use_error_feedback = true;
  bool warm_start = true;
  double orthogonalization_epsilon = 0;  // added to the norm of each column
  uint64_t random_seed = 0;              // of the first Q
};

// A hook of one model. On ranks with equal instruction sets and threads, the bits are the same on all.
//
// A mean that is not finite leaves the state of all parameters as it was, so that a loss scaler that skips the step has
// lost nothing. Where a matrix overflows twice in a row, what was kept of it is forgotten: it may be the cause. Errors
// follow the gradients' scale, where set_gradient_scale tells it (Fabric does).
class PowerSgdHook final : public CommHook {
 public:
  explicit PowerSgdHook(const PowerSgdOptions& options = {});

  std::string_view name() const override { return "powerSGD"; }
  bool keeps_state() const override { return true; }
  int64_t scratch_bytes(const GradBucket& bucket) const override;
  void prepare(Communicator& ranks, const std::vector<GradBucket>& buckets) override;
  Exchange start(Communicator& ranks, const GradBucket& bucket) override;
  void set_gradient_scale(const Tensor& scale) override;
  double gradient_scale() const override { return gradient_scale_; }

  // Of all exchanges so far, in elements.
  struct CompressionStats {
    int64_t numel_before = 0, numel_after = 0;
    double rate() const {
      return numel_after > 0 ? static_cast<double>(numel_before) / static_cast<double>(numel_after) : 0;
    }
  };
  CompressionStats compression_stats() const { return stats_; }
  int64_t iter() const { return iter_; }

  // What a checkpoint needs: "iter", under a loss scale "gradient_scale", and of parameters "q.<name>", "error.<name>",
  // of all ranks, and "overflowed.<name>". Both are collective; state_dict_on gives it to one rank, an empty map to the
  // others, which need no room for all ranks' errors. Ranks of another number each get the mean of the errors, which
  // leaves the next mean what it would have been. Only while the hook serves a model.
  std::map<std::string, Tensor> state_dict() const;
  std::map<std::string, Tensor> state_dict_on(int rank) const;
  void check_state_dict(const std::map<std::string, Tensor>& state) const;  // throws what loading would
  void load_state_dict(const std::map<std::string, Tensor>& state);

 private:
  // A parameter whose gradient is compressed: as a matrix, as it lies in memory.
  struct Compressed {
    Dims shape, strides;  // the gradient's
    int64_t rows = 0, columns = 0, rank = 0;
    DType dtype = DType::f32;
    Device device;
    uint64_t number = 0;      // among the model's compressed parameters
    Tensor error;             // [rows, columns]; undefined: none yet
    Tensor q;                 // [columns, rank]; undefined: none yet
    bool overflowed = false;  // in the last exchange

    Dims matrix_shape() const { return {rows, columns}; }
    Dims p_shape() const { return {rows, rank}; }
    Dims q_shape() const { return {columns, rank}; }
  };
  struct Matrices;  // of one bucket under way

  Tensor all_errors(const Compressed& c, std::optional<int> rank) const;
  std::map<std::string, Tensor> gathered_state(std::optional<int> rank) const;
  Compressed layout(const Tensor& gradient) const;
  bool compresses(const Compressed& matrix) const;
  Matrices split(const GradBucket& bucket) const;
  void bring_errors_to_scale();
  void begin_q(const Compressed& matrix, const Tensor& q, int64_t iter) const;
  Exchange reduce_q(Communicator& ranks, const std::shared_ptr<Matrices>& matrices) const;
  void multiply_out(const Matrices& matrices) const;
  void keep(Compressed& state, const Tensor& m, const Tensor& p, const Tensor& own_q, const Tensor& q) const;

  const PowerSgdOptions options_;
  Communicator* ranks_ = nullptr;                 // while claimed
  std::map<std::string, Compressed> state_;       // by parameter
  std::vector<std::vector<Compressed*>> places_;  // by bucket and gradient; null: travels as it is
  std::shared_ptr<bool> step_fits_;               // of the backward under way
  int64_t iter_ = 0;
  double gradient_scale_ = 1;  // of the backwards from now on
  double error_scale_ = 1;     // that errors carry: of the last backward
  CompressionStats stats_;
};

}  // namespace loom
