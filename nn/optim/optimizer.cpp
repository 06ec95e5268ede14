#include <loom/nn/optim/optimizer.h>

#include <loom/autograd/ops.h>
#include <loom/nn/mismatches.h>
#include <loom/tensor/raw.h>

namespace loom::optim {

namespace {

DType state_dtype(DType of_parameter) { return of_parameter == f64 ? f64 : f32; }

}  // namespace

double Group::option(const std::string& name) const {
  const auto found = options.find(name);
  check(found != options.end(), "optimizer: a parameter group has no option '", name, "'");
  return found->second;
}

const Tensor& ParameterState::tensor(const std::string& name, const Tensor& value, double initial) {
  const DType dtype = state_dtype(value.dtype());
  Tensor& x = tensors[name];
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
  half_update_ = how;
  rounding_seed_ = seed;
  if (how == HalfUpdate::master) return;
  for (auto& [parameter, state] : states_) state.tensors.erase("master");
}

Optimizer::Item Optimizer::item(const NamedTensor& parameter, const Piece& piece, uint64_t place) {
  constexpr uint64_t apart = 0x726f756e64696e67;  // the generator of the same seed draws other numbers
  ParameterState& own = state(parameter.tensor);
  const bool half = is_half(piece.value.dtype());
  if (!half) own.restore_from_master(piece.value);
  Item out{{raw::contiguous(piece.value), raw::contiguous(piece.grad)}, &own, {}, {}, false, {}};
  if (!half) return out;
  out.factor = half_factor_;
  if (half_update_ == HalfUpdate::master) {
    out.master = own.master(piece.value);
    out.value_written = !own.is_rounding_of_master(piece.value);
  }
  if (half_update_ == HalfUpdate::stochastic)
    out.rounding = Philox{rounding_seed_ ^ apart, static_cast<uint64_t>(rounding_step_) << 24 | place, 0};
  return out;
}

bool Optimizer::step_unless(const Tensor& found) {
  if (found.item<float>() == 0) {
    step();
    return true;
  }
  skip_step();
  return false;
}

void Optimizer::skip_step() {
  ++counts_.skipped;
  half_factor_ = Tensor();
}

void Optimizer::step() {
  const NoGrad no_grad;
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
  if (half_update_ == HalfUpdate::stochastic) ++rounding_step_;
  ++counts_.taken;
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

State Optimizer::state_dict() const {
  State out;
  if (rounding_step_ > 0) out["rounding_step"] = full({}, static_cast<double>(rounding_step_), i64);
  for (size_t i = 0; i < groups_.size(); ++i) {
    for (const auto& [name, value] : groups_[i].options) out[str("groups.", i, ".", name)] = full({}, value, f64);
    for (const auto& [name, tensor] : groups_[i].parameters) {
      const auto found = states_.find(tensor.body_pointer().get());
      if (found == states_.end()) continue;
      const ParameterState& state = found->second;
      if (counts_steps() && state.step > 0) out["step." + name] = full({}, static_cast<double>(state.step), i64);
      for (const auto& [slot, x] : state.tensors) out[str(slot, ".", name)] = x;
    }
  }
  return out;
}

std::string Optimizer::mismatches(const State& values) const {
  Mismatches found(values);
  found.expect("rounding_step", {}, false);
  for (size_t i = 0; i < groups_.size(); ++i) {
    Group group = groups_[i];  // with the options that would be loaded
    const std::string prefix = str("groups.", i, ".");
    for (const char* const name : options_of_schedulers) group.options.emplace(name, 0);
    for (const auto& [name, value] : group.options) found.expect(prefix + name, {}, defaults_.contains(name));
    take_options(group, values, prefix);
    const std::vector<std::string> names = slots(group);
    for (const NamedTensor& parameter : group.parameters) {
      bool stepped = values.contains("step." + parameter.name);
      for (const std::string& slot : names) stepped = stepped || values.contains(slot + "." + parameter.name);
      if (counts_steps()) found.expect("step." + parameter.name, {}, stepped);
      const Dims shape = piece(parameter).value.shape();
      for (const std::string& slot : names) found.expect(slot + "." + parameter.name, shape, stepped);
      found.expect("master." + parameter.name, shape, false);  // whatever the precision that it was saved in
    }
  }
  found.refuse_others();
  return found.text();
}

void Optimizer::take_options(Group& group, const State& values, const std::string& prefix) {
  for (auto at = values.lower_bound(prefix); at != values.end() && at->first.starts_with(prefix); ++at)
    if (at->second.defined() && at->second.dim() == 0)
      group.options[at->first.substr(prefix.size())] = at->second.item<double>();
}

void Optimizer::check_state_dict(const State& values) const {
  const std::string text = mismatches(values);
  check(text.empty(), name_, "::load_state_dict: ", text);
  for (size_t i = 0; i < groups_.size(); ++i) {
    Group group = groups_[i];
    take_options(group, values, str("groups.", i, "."));
    validate(group);
  }
}

void Optimizer::load_state_dict(State values) {
  check_state_dict(values);
  const auto rounded = values.find("rounding_step");
  rounding_step_ = rounded == values.end() ? 0 : rounded->second.item<int64_t>();
  std::unordered_map<const Tensor::Body*, ParameterState> states;
  for (size_t i = 0; i < groups_.size(); ++i) {
    take_options(groups_[i], values, str("groups.", i, "."));
    for (const NamedTensor& parameter : groups_[i].parameters) {
      ParameterState state;
      if (const auto step = values.find("step." + parameter.name); step != values.end())
        state.step = step->second.item<int64_t>();
      const Tensor value = piece(parameter).value;
      std::vector<std::string> names = slots(groups_[i]);
      if (!is_half(value.dtype()) || half_update_ == HalfUpdate::master) names.emplace_back("master");
      for (const std::string& slot : names)
        if (const auto x = values.find(slot + "." + parameter.name); x != values.end()) {
          const Tensor given = std::exchange(x->second, {});
          // Ours: steps write to it.
          state.tensors[slot] =
              raw::clone(raw::cast(raw::to_device(given, value.device()), state_dtype(value.dtype())));
        }
      if (state.step > 0 || !state.tensors.empty()) states[parameter.tensor.body_pointer().get()] = std::move(state);
    }
  }
  states_ = std::move(states);
}

}  // namespace loom::optim
