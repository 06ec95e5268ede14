// PowerSGD's part of a checkpoint.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <string_view>

#include <loom/distributed/power_sgd.h>
#include <loom/tensor/raw.h>

namespace loom {

namespace {

constexpr std::string_view errors = "error.", factors = "q.", overflows = "overflowed.";
constexpr std::string_view scale = "gradient_scale";  // that errors carry; none: 1
constexpr std::string_view prefixes[] = {errors, factors, overflows};

Dims with_first(int64_t first, Dims rest) {
  rest.insert(0, first);
  return rest;
}

}  // namespace

std::map<std::string, Tensor> PowerSgdHook::state_dict() const { return gathered_state({}); }
std::map<std::string, Tensor> PowerSgdHook::state_dict_on(int rank) const { return gathered_state(rank); }

// On `rank`, or on all; undefined on the others. Errors travel as they lie in memory.
Tensor PowerSgdHook::all_errors(const Compressed& c, std::optional<int> rank) const {
  Tensor all;
  if (!rank || rank == ranks_->rank()) all = empty(with_first(ranks_->size(), c.matrix_shape()), {c.dtype, c.device});
  if (rank)
    ranks_->gather(all.defined() ? all : c.error, c.error, *rank).wait();
  else
    ranks_->all_gather(all, c.error).wait();
  if (!all.defined()) return all;
  return raw::contiguous(
      raw::as_strided(all, with_first(ranks_->size(), c.shape), with_first(c.error.numel(), c.strides), 0));
}

std::map<std::string, Tensor> PowerSgdHook::gathered_state(std::optional<int> rank) const {
  check(ranks_ != nullptr, "powerSGD: no model uses this hook yet");
  std::map<std::string, Tensor> out{{"iter", full({}, static_cast<double>(iter_), DType::i64)}};
  if (error_scale_ != 1) out.emplace(scale, full({}, error_scale_, DType::f64));
  for (const auto& [name, c] : state_) {
    if (c.q.defined()) out.emplace(str(factors, name), raw::clone(c.q));
    if (c.overflowed) out.emplace(str(overflows, name), full({}, 1, DType::boolean));
    if (!c.error.defined()) continue;
    if (const Tensor all = all_errors(c, rank); all.defined()) out.emplace(str(errors, name), all);
  }
  if (rank && rank != ranks_->rank()) out.clear();
  return out;
}

void PowerSgdHook::check_state_dict(const std::map<std::string, Tensor>& state) const {
  check(ranks_ != nullptr, "powerSGD: no model uses this hook yet; give it to one before loading its state");
  check(state.contains("iter"), "powerSGD: the state has no 'iter'");
  for (const auto& [key, tensor] : state) {
    if (key == "iter" || key == scale) {
      check(tensor.numel() == 1, "powerSGD: '", key, "' has shape ", tensor.shape(), ", expected one number");
      const auto value = tensor.item<double>();
      check(key != scale || (value > 0 && std::isfinite(value)), "powerSGD: the saved gradient scale is ", value,
            ", expected a positive number");
      continue;
    }
    const auto prefix = std::ranges::find_if(prefixes, [&](std::string_view p) { return key.starts_with(p); });
    const auto found = state_.find(prefix == std::end(prefixes) ? "" : key.substr(prefix->size()));
    check(prefix != std::end(prefixes) && found != state_.end(), "powerSGD: the state has '", key,
          "', which is of no parameter that this model compresses");
    const Compressed& c = found->second;
    const bool is_error = *prefix == errors;
    const int64_t ranks = is_error && tensor.dim() > 0 ? tensor.size(0) : 0;
    const Dims expected = is_error ? with_first(ranks, c.shape) : *prefix == factors ? c.q_shape() : Dims();
    check(tensor.shape() == expected && (!is_error || ranks > 0), "powerSGD: '", key, "' has shape ", tensor.shape(),
          ", expected ", is_error ? "ranks and " : "", is_error ? c.shape : expected);
  }
}

void PowerSgdHook::load_state_dict(const std::map<std::string, Tensor>& state) {
  check_state_dict(state);
  iter_ = state.at("iter").item<int64_t>();
  const auto carried = state.find(std::string(scale));
  error_scale_ = carried == state.end() ? 1 : carried->second.item<double>();
  for (auto& [name, c] : state_) {
    c.q = c.error = Tensor();
    c.overflowed = state.contains(str(overflows, name));
    if (const auto q = state.find(str(factors, name)); q != state.end())
      c.q = raw::clone(raw::to_device(raw::cast(q->second, c.dtype), c.device));
    const auto saved = state.find(str(errors, name));
    if (saved == state.end()) continue;
    const Tensor& all = saved->second;
    const Tensor own = all.size(0) == ranks_->size() ? raw::select(all, 0, ranks_->rank())
                                                     : raw::reduce(Reduce::mean, all, {0}, false);
    c.error = empty(c.matrix_shape(), {c.dtype, c.device});
    raw::copy_into(raw::as_strided(c.error, c.shape, c.strides, c.error.storage_offset()),
                   raw::to_device(raw::cast(own, c.dtype), c.device));
  }
}

}  // namespace loom
