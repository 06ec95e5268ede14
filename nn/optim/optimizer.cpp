#include <loom/nn/optim/optimizer.h>

#include <unordered_set>

#include <loom/accelerators/profile.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/device_graph.h>
#include <loom/tensor/raw.h>

namespace loom::optim {

double Group::option(const std::string& name) const {
  const auto found = options.find(name);
  check(found != options.end(), "optimizer: a parameter group has no option '", name, "'");
  return found->second;
}

Tensor& ParameterState::memory(const std::string& name) {
  Tensor& x = tensors[name];
  if (const auto found = unused.find(name); found != unused.end()) {
    if (!x.defined()) x = found->second;
    unused.erase(found);
  }
  return x;
}

const Tensor& ParameterState::tensor(const std::string& name, const Tensor& value, double initial) {
  const OutsideCapture once;
  const DType dtype = dtype_of_state(value.dtype());
  Tensor& x = memory(name);
  if (!x.defined()) x = full(value.shape(), initial, {dtype, value.device()});
  if (x.dtype() != dtype) x = raw::cast(x, dtype);  // state follows its parameter
  if (x.device() != value.device()) x = raw::to_device(x, value.device());
  return x;
}

const Tensor& ParameterState::master(const Tensor& value) {
  Tensor& copy = tensors["master"];
  if (!copy.defined()) {
    copy = raw::cast(raw::contiguous(value), f32);
    note_master_written(value);
  }
  copy = raw::to_device(copy, value.device());
  return copy;
}

bool ParameterState::is_rounding_of_master(const Tensor& value) const {
  return rounded_in_ == value.storage() && rounded_version_ == value.version();
}

void ParameterState::restore_from_master(const Tensor& value) {
  const auto found = tensors.find("master");
  if (found == tensors.end()) return;
  const Tensor copy = raw::to_device(raw::cast(found->second, value.dtype()), value.device());
  const auto is_rounding = [&](DType half) { return raw::cast(raw::cast(copy, half), value.dtype()) == value; };
  raw::copy_into(value, where(logical_or(is_rounding(bf16), is_rounding(f16)), copy, value));
  tensors.erase(found);
}

void ParameterState::note_master_written(const Tensor& value) {
  rounded_in_ = value.storage();
  rounded_version_ = value.version();
}

void Optimizer::require(bool ok, const char* what, double value) const {
  check(ok, name_, ": invalid ", what, ": ", value);
}

double Optimizer::initial(const Group&, const std::string&) const { return 0; }

void Optimizer::add_param_groups(std::vector<Group> groups) {
  check(!groups.empty(), name_, ": got an empty parameter list");
  for (Group& group : groups) add_param_group(std::move(group));
}

void Optimizer::add_param_group(Group group) {
  check(!groups_.empty() || !group.parameters.empty(), name_, ": got an empty parameter list");
  for (const auto& [option, value] : group.options)
    check(defaults_.contains(option), name_, ": unknown option '", option, "' of a parameter group");
  group.options.insert(defaults_.begin(), defaults_.end());
  validate(group);
  std::unordered_set<const void*> seen;
  std::unordered_set<std::string> names;
  for (const Group& other : groups_)
    for (const auto& [name, tensor] : other.parameters) {
      seen.insert(tensor.body_pointer().get());
      names.insert(name);
    }
  for (auto& [name, tensor] : group.parameters) {
    check(tensor.defined() && tensor.is_leaf(), name_, ": can't optimize a non-leaf tensor (", name, ")");
    check(seen.insert(tensor.body_pointer().get()).second, name_, ": parameter ", name,
          " appears in more than one parameter group, or twice in one");
    // State is kept by name: parameters of two modules may share one.
    if (name.empty()) name = str("parameter", names.size());
    for (int copy = 2; !names.insert(name).second; ++copy) name = str(name.substr(0, name.find('#')), "#", copy);
  }
  groups_.push_back(std::move(group));
}

Piece Optimizer::piece(const NamedTensor& parameter) const {
  return access_ ? access_(parameter) : Piece{parameter.tensor, parameter.tensor.grad()};
}

void Optimizer::set_half_update(HalfUpdate how, uint64_t seed) {
  if (how != std::exchange(half_update_, how)) ++half_updates_;
  set_rounding_seed(seed);
  if (how == HalfUpdate::master) return;
  for (auto& [parameter, state] : states_) state.tensors.erase("master");
}

Optimizer::Item Optimizer::item(const NamedTensor& parameter, const Piece& piece, uint64_t place) {
  ParameterState& own = state(parameter.tensor);
  const bool half = is_half(piece.value.dtype());
  if (!half) own.restore_from_master(piece.value);
  Item out{{raw::contiguous(piece.value), raw::contiguous(piece.grad)}, &own, {}, {}, false, {}};
  if (!half) return out;
  if (half_factor_.defined()) out.factor = raw::to_device(half_factor_, piece.value.device());  // it may have moved
  if (half_update_ == HalfUpdate::master) {
    {
      const OutsideCapture once;
      out.master = own.master(piece.value);
    }
    // Whoever writes to it between a graph's replays is not seen by the host.
    out.value_written = context().capture != nullptr || !own.is_rounding_of_master(piece.value);
  }
  if (half_update_ == HalfUpdate::stochastic) out.rounding = rounding(place, piece.value.device());
  return out;
}

void Optimizer::skip_step() {
  ++counts_.skipped;
  half_factor_ = Tensor();
}

void Optimizer::step() {
  const NoGrad no_grad;
  make_step();
  note_made();
}

void Optimizer::make_step() {
  const profile::Range range(Activity::optimizer, [this] {
    const std::vector<NamedTensor>& first = groups_.front().parameters;
    return profile::Description{.name = str(name_, ".step"),
                                .device = first.empty() ? Device() : first.front().tensor.device()};
  });
  uint64_t place = 0;
  for (const Group& group : groups_) {
    std::vector<Item> items;
    std::vector<Tensor> targets;
    items.reserve(group.parameters.size());
    targets.reserve(group.parameters.size());
    for (const NamedTensor& parameter : group.parameters) {
      ++place;
      auto [value, grad] = piece(parameter);
      if (!grad.defined()) continue;
      check(grad.shape() == value.shape() && grad.device() == value.device(), name_, ": the gradient of ",
            parameter.name, " is ", grad.shape(), " on ", grad.device(), ", the parameter ", value.shape(), " on ",
            value.device());
      items.push_back(item(parameter, {value, grad}, place));
      targets.push_back(std::move(value));
    }
    count_on_device(group, items);
    update(group, items);
    for (size_t i = 0; i < items.size(); ++i) {
      if (items[i].piece.value.storage() == targets[i].storage())
        targets[i].storage()->bump_version();
      else
        raw::copy_into(targets[i], items[i].piece.value);
      if (items[i].master.defined()) items[i].state->note_master_written(targets[i]);
    }
  }
  half_factor_ = Tensor();
}

void Optimizer::zero_grad(bool set_to_none) {
  const NoGrad no_grad;
  for (const Group& group : groups_)
    for (const auto& [name, tensor] : group.parameters) {
      if (!tensor.grad().defined()) continue;
      if (set_to_none) {
        tensor.set_grad({});
      } else {
        if (tensor.grad().requires_grad()) tensor.set_grad(tensor.grad().detach());
        tensor.grad().zero_();
      }
    }
}

std::vector<Tensor> Optimizer::gradients() const {
  std::vector<Tensor> out;
  for (const Group& group : groups_)
    for (const NamedTensor& p : group.parameters)
      if (p.tensor.grad().defined()) out.push_back(p.tensor.grad());
  return out;
}

}  // namespace loom::optim
