// PowerSGD's part of a checkpoint.
#include <string_view>

#include <loom/distributed/power_sgd.h>
#include <loom/tensor/raw.h>

namespace loom {

namespace {

constexpr std::string_view errors = "error.", factors = "q.";

Dims with_ranks(int64_t ranks, Dims shape) {
  shape.insert(0, ranks);
  return shape;
}

}  // namespace

std::map<std::string, Tensor> PowerSgdHook::state_dict() const {
  check(ranks_ != nullptr, "powerSGD: no model uses this hook yet");
  std::map<std::string, Tensor> out{{"iter", full({}, static_cast<double>(iter_), DType::i64)}};
  for (const auto& [name, c] : state_) {
    if (c.q.defined()) out.emplace(str(factors, name), raw::clone(c.q));
    if (!c.error.defined()) continue;
    const Tensor own = raw::clone(raw::as_strided(c.error, c.shape, c.strides, c.error.storage_offset()));
    const Tensor all = empty(with_ranks(ranks_->size(), c.shape), {c.dtype, c.device});
    ranks_->all_gather(all, own).wait();
    out.emplace(str(errors, name), all);
  }
  return out;
}

void PowerSgdHook::check_state_dict(const std::map<std::string, Tensor>& state) const {
  check(ranks_ != nullptr, "powerSGD: no model uses this hook yet; give it to one before loading its state");
  check(state.contains("iter"), "powerSGD: the state has no 'iter'");
  for (const auto& [key, tensor] : state) {
    if (key == "iter") continue;
    const bool is_error = key.starts_with(errors);
    const auto found = state_.find(key.substr(is_error ? errors.size() : factors.size()));
    check((is_error || key.starts_with(factors)) && found != state_.end(), "powerSGD: the state has '", key,
          "', which is of no parameter that this model compresses");
    const Compressed& c = found->second;
    const int64_t ranks = is_error && tensor.dim() > 0 ? tensor.size(0) : 0;
    const Dims expected = is_error ? with_ranks(ranks, c.shape) : c.q_shape();
    check(tensor.shape() == expected && (!is_error || ranks > 0), "powerSGD: '", key, "' has shape ", tensor.shape(),
          ", expected ", is_error ? "ranks and " : "", is_error ? c.shape : expected);
  }
}

void PowerSgdHook::load_state_dict(const std::map<std::string, Tensor>& state) {
  check_state_dict(state);
  iter_ = state.at("iter").item<int64_t>();
  for (auto& [name, c] : state_) {
    c.q = c.error = Tensor();
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
