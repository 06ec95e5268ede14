// What a checkpoint keeps of an optimizer, and what of it is taken.
#include <algorithm>
#include <cmath>

#include <loom/autograd/ops.h>
#include <loom/nn/mismatches.h>
#include <loom/nn/optim/optimizer.h>
#include <loom/tensor/raw.h>

namespace loom::optim {

namespace {

// Flags are 0 or 1, and what schedulers note is never negative; the bounds of the others are validate()'s.
bool fits(const std::string& option, double value) {
  for (const char* const flag : {"amsgrad", "centered", "maximize", "nesterov"})
    if (option == flag) return value == 0 || value == 1;
  for (const OptionOfSchedulers& noted : options_of_schedulers)
    if (option == noted.name) return std::isfinite(value) && value >= 0;
  return std::isfinite(value);
}

// The options of a group under `prefix`, and whether the numbers that are there can be.
bool expect_options(Mismatches& found, const Group& group, const State& values, const std::string& prefix) {
  int level = 0;
  for (const OptionOfSchedulers& noted : options_of_schedulers)
    if (values.contains(prefix + noted.name)) level = std::max(level, noted.level);
  std::map<std::string, bool> needed;
  for (const OptionOfSchedulers& noted : options_of_schedulers) needed[noted.name] = noted.level <= level;
  for (const auto& [name, value] : group.options) needed[name] = true;
  bool all_fit = true;
  for (const auto& [name, need] : needed) {
    const std::string key = prefix + name;
    if (!found.expect(key, {}, f64, need)) continue;
    const auto value = values.at(key).item<double>();
    if (fits(name, value)) continue;
    found.refuse(str(key, " is ", value));
    all_fit = false;
  }
  return all_fit;
}

void expect_count(Mismatches& found, const State& values, const std::string& key, bool needed) {
  if (!found.expect(key, {}, i64, needed)) return;
  if (const auto count = values.at(key).item<int64_t>(); count < 0) found.refuse(str(key, " is ", count));
}

// A copy: steps write to it.
void load_into(ParameterState& state, const std::string& slot, const Tensor& given, const Tensor& value) {
  const Tensor fitting =
      raw::cast(raw::to_device(given, value.device()), ParameterState::dtype_of_state(value.dtype()));
  Tensor& own = state.memory(slot);
  if (own.defined() && own.shape() == fitting.shape() && own.dtype() == fitting.dtype())
    raw::copy_into(own, fitting);
  else
    own = raw::clone(fitting);
}

}  // namespace

State Optimizer::state_dict() const {
  State out;
  if (const int64_t steps = rounding_steps(); steps > 0)
    out["rounding_step"] = full({}, static_cast<double>(steps), i64);
  for (size_t i = 0; i < groups_.size(); ++i) {
    for (const auto& [name, value] : groups_[i].options) out[str("groups.", i, ".", name)] = full({}, value, f64);
    const std::vector<std::string> names = slots(groups_[i]);
    for (const NamedTensor& parameter : groups_[i].parameters) {
      const auto& [name, tensor] = parameter;
      const auto found = states_.find(tensor.body_pointer().get());
      if (found == states_.end()) continue;
      const ParameterState& state = found->second;
      const int64_t steps = state.steps();
      const bool all_skipped = state.count.defined() && steps == 0;
      if (state.tensors.contains("master") && (!all_skipped || state.master_kept))
        out["master." + name] = master_of(parameter, state);
      if (all_skipped) continue;
      if (counts_steps() && steps > 0) out["step." + name] = full({}, static_cast<double>(steps), i64);
      for (const auto& [slot, x] : state.tensors)
        if (slot != "master") out[str(slot, ".", name)] = x;
      for (const std::string& slot : names)  // a captured step may have written to it
        if (const auto x = state.unused.find(slot); x != state.unused.end()) out[str(slot, ".", name)] = x->second;
    }
  }
  return out;
}

// As the next step will find it: elements that somebody has written since are the parameter's.
Tensor Optimizer::master_of(const NamedTensor& parameter, const ParameterState& state) const {
  const NoGrad no_grad;
  const Tensor& copy = state.tensors.at("master");
  const Tensor value = piece(parameter).value;
  if (!is_half(value.dtype()) || state.is_rounding_of_master(value) || copy.device() != value.device()) return copy;
  return where(raw::cast(copy, value.dtype()) == value, copy, raw::cast(value, f32));
}

std::vector<std::string> Optimizer::all_slots(const Group& group) const {
  Group with_all;
  for (const auto& [name, value] : group.options) with_all.options[name] = value == 0 ? 1 : value;
  return slots(with_all);
}

std::string Optimizer::mismatches(const State& values) const {
  Mismatches found(values);
  expect_count(found, values, "rounding_step", false);
  for (size_t i = 0; i < groups_.size(); ++i) {
    Group group = groups_[i];  // with the options that would be loaded
    const std::string prefix = str("groups.", i, ".");
    take_options(group, values, prefix);
    const bool fit = expect_options(found, groups_[i], values, prefix);
    if (fit) {
      try {
        validate(group);
      } catch (const Error& error) {
        found.refuse(str("groups.", i, ": ", error.what()));
      }
    }
    const std::vector<std::string> names = slots(fit ? group : groups_[i]);
    for (const NamedTensor& parameter : group.parameters) {
      bool stepped = values.contains("step." + parameter.name);
      const std::vector<std::string> all = all_slots(group);
      for (const std::string& slot : all) stepped = stepped || values.contains(slot + "." + parameter.name);
      if (counts_steps()) expect_count(found, values, "step." + parameter.name, stepped);
      const Tensor value = piece(parameter).value;
      const Dims shape = value.shape();
      const DType dtype = ParameterState::dtype_of_state(value.dtype());
      for (const std::string& slot : all)
        found.expect(slot + "." + parameter.name, shape, dtype, stepped && std::ranges::count(names, slot) > 0);
      found.expect("master." + parameter.name, shape, f32, false);  // whatever the precision that it was saved in
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
}

// What is loaded goes to where a captured graph looks for it, if one may: into the same memory.
ParameterState Optimizer::uncounted(const Tensor& parameter) const {
  const auto found = states_.find(parameter.body_pointer().get());
  if (found == states_.end() || !found->second.count.defined()) return {};
  ParameterState out;
  out.count = found->second.count;
  out.set_steps(0);
  out.tensors = found->second.tensors;
  out.unused = found->second.unused;
  return out;
}

// What is not there is as before the first step, in the same memory; what the options do not ask for is put aside.
void Optimizer::load_slots(ParameterState& state, const Group& group, const NamedTensor& parameter,
                           State& values) const {
  const Tensor value = piece(parameter).value;
  const std::vector<std::string> names = slots(group);
  bool stepped = false;
  for (const std::string& slot : all_slots(group)) {
    if (const auto x = values.find(slot + "." + parameter.name); x != values.end()) {
      load_into(state, slot, std::exchange(x->second, {}), value);
      stepped = true;
    } else if (const auto kept = state.tensors.find(slot); kept != state.tensors.end()) {
      if (std::ranges::find(names, slot) == names.end())
        state.unused.insert(state.tensors.extract(kept));
      else
        raw::fill_into(kept->second, initial(group, slot));
    }
  }
  for (auto& [slot, memory] : state.unused) raw::fill_into(memory, initial(group, slot));
  if (!counts_steps() && state.count.defined()) state.set_steps(stepped ? 1 : 0);
  if (is_half(value.dtype()) && half_update_ != HalfUpdate::master) return;
  const auto x = values.find("master." + parameter.name);
  state.master_kept = x != values.end();
  if (state.master_kept)
    load_into(state, "master", std::exchange(x->second, {}), value);
  else if (state.tensors.contains("master"))
    raw::copy_into(state.tensors["master"], raw::cast(value, f32));
}

void Optimizer::load_state_dict(State values) {
  check_state_dict(values);
  const auto rounded = values.find("rounding_step");
  set_rounding_steps(rounded == values.end() ? 0 : rounded->second.item<int64_t>());
  std::unordered_map<const Tensor::Body*, ParameterState> states;
  for (size_t i = 0; i < groups_.size(); ++i) {
    take_options(groups_[i], values, str("groups.", i, "."));
    for (const NamedTensor& parameter : groups_[i].parameters) {
      ParameterState state = uncounted(parameter.tensor);
      if (const auto step = values.find("step." + parameter.name); step != values.end())
        state.set_steps(step->second.item<int64_t>());
      load_slots(state, groups_[i], parameter, values);
      if (state.step > 0 || state.count.defined() || !state.tensors.empty())
        states[parameter.tensor.body_pointer().get()] = std::move(state);
    }
  }
  states_ = std::move(states);
}

}  // namespace loom::optim
