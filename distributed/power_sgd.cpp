#include <loom/distributed/power_sgd.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include <loom/tensor/context.h>
#include <loom/tensor/raw.h>

namespace loom {

namespace {

double length_of(const Tensor& v) {
  return std::sqrt(raw::reduce(Reduce::sum_of_squares, v, {}, false).item<double>());
}

// Makes the columns of m [n, r], r <= n, orthonormal, in place. One that depends on those before it becomes zero, or is
// replaced by what `refill` writes. By Gram-Schmidt, in f64 and each column twice, so that a column that is all but in
// the span of the others comes out orthogonal as well. One that is not finite leaves NaN.
void orthogonalize(const Tensor& m, double epsilon, const std::function<void(const Tensor&)>& refill = {}) {
  const Tensor columns = raw::clone(raw::transpose(raw::cast(m, DType::f64), 0, 1));
  for (int64_t i = 0; i < columns.size(0); ++i) {
    const Tensor v = raw::slice(columns, 0, i, i + 1, 1), before = raw::slice(columns, 0, 0, i, 1);
    const auto project = [&] {
      const double length = length_of(v);
      for (int pass = 0; i > 0 && pass < 2; ++pass)
        raw::binary_into(Binary::sub, v, raw::matmul(raw::matmul(v, raw::transpose(before, 0, 1)), before));
      const double left = length_of(v);
      return left == 0 || left < 1e-10 * length ? 0 : left;  // infinite ones stay so
    };
    double length = project();
    if (length == 0 && refill) {
      refill(v);
      length = project();
    }
    if (length == 0)
      raw::fill_into(v, 0);
    else
      raw::binary_into(Binary::div, v, Tensor(length + epsilon));
  }
  raw::copy_into(m, raw::transpose(columns, 0, 1));
}

// Of a thin matrix; NaN where there is one.
double longest_row(const Tensor& m) {
  const Tensor squares = raw::reduce(Reduce::sum_of_squares, raw::cast(m, DType::f64), {1}, false);
  return std::sqrt(raw::reduce(Reduce::max, squares, {}, false).item<double>());
}

// Sums are in f32 at least, so that no sum of 16-bit numbers overflows.
bool all_finite(const Tensor& x) {
  return x.numel() == 0 || std::isfinite(raw::reduce(Reduce::mean, x, {}, false).item<double>());
}

// Whether P Q^T has only finite elements: each is a product of a row of P and one of Q.
bool product_fits(const Tensor& p, const Tensor& q) {
  return all_finite(full({}, longest_row(p) * longest_row(q), p.dtype()));
}

// A gradient's place as it lies in memory.
Tensor as_matrix(const Tensor& gradient, const Dims& shape) {
  return raw::as_strided(gradient, shape, row_major_strides(shape), gradient.storage_offset());
}

Tensor transposed(const Tensor& matrix) { return raw::transpose(matrix, 0, 1); }

}  // namespace

struct PowerSgdHook::Matrices {
  struct One {
    Compressed* state;
    Tensor m, p, q;
    Tensor own_q;      // before it became the mean
    bool fits = true;  // the mean is finite
  };
  std::vector<One> compressed;
  std::vector<std::pair<Tensor, Tensor>> plain;  // a gradient, and where it travels
  Tensor first, second;                          // what travels in the first leg, and in the second
  std::shared_ptr<bool> step_fits;               // all means of this backward, of all buckets, are finite
};

PowerSgdHook::PowerSgdHook(const PowerSgdOptions& options) : options_(options) {
  check(options.matrix_approximation_rank >= 1, "powerSGD: matrix_approximation_rank is ",
        options.matrix_approximation_rank, ", expected at least 1");
  check(options.start_powerSGD_iter >= 0, "powerSGD: start_powerSGD_iter is ", options.start_powerSGD_iter,
        ", expected 0 or more");
  check(options.min_compression_rate > 0, "powerSGD: min_compression_rate is ", options.min_compression_rate,
        ", expected more than 0");
  check(options.orthogonalization_epsilon >= 0, "powerSGD: orthogonalization_epsilon is ",
        options.orthogonalization_epsilon, ", expected 0 or more");
}

// Rows are along the dimension of the largest stride: dense memory, whatever the order of dimensions.
PowerSgdHook::Compressed PowerSgdHook::layout(const Tensor& gradient) const {
  Compressed out{gradient.shape(), gradient.strides(), 1, gradient.numel(), 1, gradient.dtype(), gradient.device()};
  int64_t largest = 0;
  for (int d = 0; d < gradient.dim(); ++d)
    if (gradient.shape()[d] != 1 && gradient.strides()[d] > largest) {
      largest = gradient.strides()[d];
      out.rows = gradient.shape()[d];
    }
  if (out.rows > 0) out.columns = gradient.numel() / out.rows;
  out.rank = std::min({out.rows, out.columns, int64_t{options_.matrix_approximation_rank}});
  return out;
}

bool PowerSgdHook::compresses(const Compressed& matrix) const {
  const auto travels = static_cast<double>((matrix.rows + matrix.columns) * matrix.rank);
  return matrix.shape.size() > 1 && matrix.rank > 0 &&
         travels * options_.min_compression_rate < static_cast<double>(matrix.rows * matrix.columns);
}

int64_t PowerSgdHook::scratch_bytes(const GradBucket& bucket) const {
  int64_t first = 0, second = 0;
  for (const Tensor& g : bucket.gradients) {
    const Compressed c = layout(g);
    first += compresses(c) ? c.p_shape().numel() : g.numel();
    second += compresses(c) ? c.q_shape().numel() : 0;
  }
  return HookScratch::bytes(first, bucket.buffer.dtype()) + HookScratch::bytes(second, bucket.buffer.dtype());
}

// What is known of a parameter stays, unless another one has come in its place.
void PowerSgdHook::prepare(Communicator& ranks, const std::vector<GradBucket>& buckets) {
  ranks_ = &ranks;
  auto old = std::exchange(state_, {});
  places_.assign(buckets.size(), {});
  for (size_t b = 0; b < buckets.size(); ++b)
    for (size_t i = 0; i < buckets[b].gradients.size(); ++i) {
      Compressed now = layout(buckets[b].gradients[i]);
      Compressed*& place = places_[b].emplace_back();
      if (!compresses(now)) continue;
      const std::string& name = buckets[b].parameters[i].name;
      if (const auto found = old.find(name); found != old.end() && found->second.shape == now.shape &&
                                             found->second.strides == now.strides && found->second.dtype == now.dtype &&
                                             found->second.device == now.device) {
        now.error = found->second.error;
        now.q = found->second.q;
        now.overflowed = found->second.overflowed;
      }
      const auto [entry, added] = state_.emplace(name, std::move(now));
      check(added, "powerSGD: two parameters are called '", name, "'");
      place = &entry->second;
    }
  uint64_t number = 0;
  for (auto& [name, c] : state_) c.number = number++;
}

PowerSgdHook::Matrices PowerSgdHook::split(const GradBucket& bucket) const {
  Matrices out;
  HookScratch scratch = bucket.scratch;
  const auto& places = places_[static_cast<size_t>(bucket.index)];
  int64_t first = 0, second = 0;
  for (size_t i = 0; i < places.size(); ++i) {
    first += places[i] ? places[i]->p_shape().numel() : bucket.gradients[i].numel();
    second += places[i] ? places[i]->q_shape().numel() : 0;
  }
  out.first = scratch.take({first}, bucket.buffer.dtype());
  out.second = scratch.take({second}, bucket.buffer.dtype());
  out.step_fits = step_fits_;
  first = second = 0;
  const auto part = [](const Tensor& of, int64_t& from, const Dims& shape) {
    return raw::as_strided(of, shape, row_major_strides(shape), std::exchange(from, from + shape.numel()));
  };
  for (size_t i = 0; i < places.size(); ++i) {
    const Tensor& g = bucket.gradients[i];
    Compressed* const c = places[i];
    if (c == nullptr)
      out.plain.emplace_back(as_matrix(g, {g.numel()}), part(out.first, first, {g.numel()}));
    else
      out.compressed.push_back({c, as_matrix(g, c->matrix_shape()), part(out.first, first, c->p_shape()),
                                part(out.second, second, c->q_shape())});
  }
  return out;
}

// The same on every rank: what it starts from is.
void PowerSgdHook::begin_q(const Compressed& matrix, const Tensor& q, int64_t iter) const {
  Context drawing = context();
  drawing.generator = {options_.random_seed, static_cast<uint64_t>(iter) << 32};
  const ContextGuard guard(drawing);
  const auto draw = [&](const Tensor& x) { raw::random_into(Random::normal, x, 0, 1, matrix.number + 1); };
  if (matrix.q.defined())
    raw::copy_into(q, matrix.q);
  else
    draw(q);
  orthogonalize(q, options_.orthogonalization_epsilon, draw);
}

Exchange PowerSgdHook::start(Communicator& ranks, const GradBucket& bucket) {
  bring_errors_to_scale();
  const int64_t iter = bucket.is_last ? iter_++ : iter_;
  if (bucket.index == 0) step_fits_ = std::make_shared<bool>(true);
  const auto& places = places_[static_cast<size_t>(bucket.index)];
  if (iter < options_.start_powerSGD_iter) return {ranks.all_reduce(bucket.buffer, ReduceOp::mean), {}};
  if (std::ranges::count(places, nullptr) == std::ssize(places))
    return followed_by({ranks.all_reduce(bucket.buffer, ReduceOp::mean), {}},
                       [mean = bucket.buffer, fits = step_fits_] { *fits = all_finite(mean) && *fits; });
  const auto matrices = std::make_shared<Matrices>(split(bucket));
  for (const auto& [gradient, travels] : matrices->plain) raw::copy_into(travels, gradient);
  for (const auto& one : matrices->compressed) {
    if (one.state->error.defined()) raw::binary_into(Binary::add, one.m, one.state->error);
    begin_q(*one.state, one.q, iter);
    raw::matmul_into(one.p, one.m, one.q, false);
  }
  stats_.numel_before += bucket.buffer.numel();
  stats_.numel_after += matrices->first.numel() + matrices->second.numel();
  return {ranks.all_reduce(matrices->first, ReduceOp::mean),
          [this, &ranks, matrices] { return reduce_q(ranks, matrices); }};
}

void PowerSgdHook::set_gradient_scale(const Tensor& scale) {
  const double told = scale.defined() ? scale.item<double>() : 1;
  check(told > 0 && std::isfinite(told), "powerSGD: the gradient scale is ", told, ", expected a positive number");
  gradient_scale_ = told;
}

void PowerSgdHook::bring_errors_to_scale() {
  const double ratio = gradient_scale_ / std::exchange(error_scale_, gradient_scale_);
  if (ratio == 1) return;
  for (auto& [name, c] : state_) {
    if (!c.error.defined()) continue;
    const Tensor wide = raw::cast(c.error, is_half(c.dtype) ? DType::f32 : c.dtype);  // 16 bits may not hold the ratio
    raw::copy_into(c.error, raw::binary(Binary::mul, wide, ratio));
    if (!all_finite(c.error)) raw::fill_into(c.error, 0);  // in 16 bits
  }
}

// Three legs follow the first: Q; what all ranks see of an overflow, in all buckets; and only then the state.
Exchange PowerSgdHook::reduce_q(Communicator& ranks, const std::shared_ptr<Matrices>& matrices) const {
  for (const auto& [mean, arrived] : matrices->plain) {
    raw::copy_into(mean, arrived);
    *matrices->step_fits = all_finite(mean) && *matrices->step_fits;
  }
  for (auto& one : matrices->compressed) {
    orthogonalize(one.p, options_.orthogonalization_epsilon);
    raw::matmul_into(one.q, transposed(one.m), one.p, false);
    if (options_.use_error_feedback) one.own_q = raw::clone(one.q);
  }
  const auto judge = [this, matrices] {
    for (auto& one : matrices->compressed) {
      one.fits = product_fits(one.p, one.q);
      *matrices->step_fits = one.fits && *matrices->step_fits;
    }
    return Exchange{{}, [this, matrices] {
                      multiply_out(*matrices);
                      return Exchange();
                    }};
  };
  return {ranks.all_reduce(matrices->second, ReduceOp::mean), judge};
}

void PowerSgdHook::multiply_out(const Matrices& matrices) const {
  for (const auto& one : matrices.compressed) {
    if (*matrices.step_fits)
      keep(*one.state, one.m, one.p, one.own_q, one.q);
    else if (!one.fits && one.state->overflowed)
      one.state->q = one.state->error = Tensor();
    one.state->overflowed = !one.fits;
    if (one.fits)
      raw::matmul_into(one.m, one.p, transposed(one.q), false);
    else
      raw::fill_into(one.m, std::numeric_limits<double>::quiet_NaN());
  }
}

// The error is what this rank's own P Q^T misses, not what the mean misses: their means are the same, but the latter
// would grow by the differences between ranks. In 16 bits it may overflow on this rank alone: then it is given up here.
void PowerSgdHook::keep(Compressed& state, const Tensor& m, const Tensor& p, const Tensor& own_q,
                        const Tensor& q) const {
  if (options_.warm_start) state.q = raw::clone(q);
  if (!options_.use_error_feedback) return;
  if (!state.error.defined()) state.error = empty(state.matrix_shape(), {state.dtype, state.device});
  raw::copy_into(state.error, m);
  raw::matmul_into(state.error, raw::unary(Unary::neg, p), transposed(own_q), true);
  if (!all_finite(state.error)) raw::fill_into(state.error, 0);
}

}  // namespace loom
