// Steps that a device counts: those that it may have to skip, and those that a captured graph repeats.
#include <algorithm>
#include <array>
#include <bit>

#include <loom/nn/optim/optimizer.h>
#include <loom/nn/optim/step_pieces.h>
#include <loom/tensor/create.h>
#include <loom/tensor/device_graph.h>
#include <loom/tensor/raw.h>

namespace loom::optim {

namespace {

constexpr int bits_of_place = 24;  // of a parameter, below the step's number in the stream of its roundings
constexpr uint64_t apart = 0x726f756e64696e67;  // the generator of the same seed draws other numbers

Tensor number_on(Device device, int64_t value) {
  const OutsideCapture once;
  return full({}, static_cast<double>(value), {i64, device});
}

int64_t* counter(const Tensor& x, int64_t at = 0) { return static_cast<int64_t*>(dense(x).data) + at; }

bool repeats() { return context().capture != nullptr; }

}  // namespace

void ParameterState::set_steps(int64_t number) {
  step = number;
  if (count.defined()) raw::fill_into(count, static_cast<double>(number));
}

StepOutcome Optimizer::step_unless(const Tensor& found) {
  if (found.device().kind == Device::cpu) {
    if (found.item<float>() == 0) {
      step();
      return true;
    }
    skip_step();
    return false;
  }
  const NoGrad no_grad;
  check(found.dtype() == f32 && found.numel() == 1, name_, ": what was found is ", found.dtype(), " ", found.shape(),
        ", expected one f32");
  if (!device_.taken.defined()) device_.taken = number_on(found.device(), 0);
  if (device_.taken.device() != found.device())
    device_.taken = number_on(found.device(), device_.taken.item<int64_t>());
  device_.skip = found;
  try {
    make_step();
    std::array taken{counter(device_.taken)};
    accelerator(found.device()).advance(taken, 1, static_cast<const float*>(dense(found).data));
    note_made();
  } catch (...) {
    device_.skip = Tensor();
    throw;
  }
  device_.skip = Tensor();
  return StepOutcome(found);
}

StepCounts Optimizer::step_counts() const {
  StepCounts out = counts_;
  if (device_.asked == 0) return out;
  const auto taken = device_.taken.item<int64_t>();
  out.taken += taken;
  out.skipped += device_.asked - taken;
  return out;
}

// In a graph it will be made at each replay.
void Optimizer::note_made() {
  advance_rounding();
  const bool decided_there = device_.skip.defined();
  const auto note = [this, decided_there] { ++(decided_there ? device_.asked : counts_.taken); };
  if (!repeats()) return note();
  context().capture->after_replay([note, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) note();
  });
}

// Of a parameter that has come back from a device.
void Optimizer::count_on_host(ParameterState& state) const {
  if (!state.count.defined()) return;
  const int64_t made = state.steps();
  state.count = Tensor();
  state.step = counts_steps() ? made : 0;
  if (made == 0) std::erase_if(state.tensors, [](const auto& slot) { return slot.first != "master"; });  // never used
}

// Where the number of a step tells only whether its tensors hold something: they are new, the number is not ...
bool Optimizer::begins_anew(std::span<const std::string> slots, const ParameterState& state) const {
  return !counts_steps() && !slots.empty() && std::ranges::none_of(slots, [&](const auto& x) {
    return state.tensors.contains(x) || state.unused.contains(x);
  });
}
// ... or they hold nothing yet, and a captured step that has been loaded away would begin them.
bool Optimizer::rests(std::span<const std::string> slots, const ParameterState& state) const {
  return !counts_steps() && !state.unused.empty() && slots.empty();
}

// Null: the host counts this one's steps.
int64_t* Optimizer::count_of(std::span<const std::string> slots, const Item& item) {
  ParameterState& state = *item.state;
  const Device own = item.piece.value.device();
  if (own.kind == Device::cpu) {
    if (device_.skip.defined()) fail(name_, ": the loss was on ", device_.skip.device(), ", a parameter is on ", own);
    count_on_host(state);
  } else if (state.count.defined() && begins_anew(slots, state)) {
    const OutsideCapture once;
    state.set_steps(0);
    state.master_kept = true;
  } else if (!state.count.defined() && (device_.skip.defined() || repeats())) {
    state.count = number_on(own, steps_of(state));
  }
  if (state.count.defined() && state.count.device() != own)
    state.count = number_on(own, state.steps());  // it follows its parameter
  if (state.count.defined() && !rests(slots, state)) return counter(state.count);
  state.master_kept = true;
  return nullptr;
}

void Optimizer::count_on_device(const Group& group, std::span<const Item> items) {
  const std::vector<std::string> names = slots(group);
  std::vector<int64_t*> counters;
  Device device;
  for (const Item& item : items) {
    int64_t* const count = count_of(names, item);
    if (count == nullptr) continue;
    const Device own = item.piece.value.device();
    check(counters.empty() || own == device, name_, ": a group's parameters are on ", device, " and ", own,
          ", expected one device for steps that it counts");
    device = own;
    counters.push_back(count);
  }
  if (counters.empty()) return;
  if (device_.skip.defined())
    check(device_.skip.device() == device, name_, ": the loss was on ", device_.skip.device(), ", a parameter is on ",
          device);
  accelerator(device).advance(counters, 1, control_skip());
}

const float* Optimizer::control_skip() const {
  return device_.skip.defined() ? static_cast<const float*>(dense(device_.skip).data) : nullptr;
}

StepControl Optimizer::control(const Group& group, std::span<const char* const> options) const {
  StepControl out{nullptr, control_skip()};
  if (!repeats()) return out;
  const size_t index = static_cast<size_t>(&group - groups_.data());
  const std::map<std::string, double> captured = group.options;
  const auto kind = [](const std::string& name, double value) {  // what chooses a kernel
    return name == "momentum" ? static_cast<double>(value != 0) : value;
  };
  const auto fill = [this, index, names = std::vector<std::string>(options.begin(), options.end()), captured, kind,
                     half_updates = half_updates_, alive = std::weak_ptr(alive_)](std::span<uint64_t> to) {
    check(!alive.expired(), "DeviceGraph: an optimizer whose step was captured is gone");
    check(half_updates_ == half_updates, name_,
          ": set_half_update was called since the step was captured; capture it again");
    const Group& now = groups_.at(index);
    for (const char* const fixed : {"amsgrad", "maximize", "nesterov", "centered", "momentum"})
      if (const auto was = captured.find(fixed); was != captured.end())
        check(kind(fixed, now.option(fixed)) == kind(fixed, was->second), name_, ": option '", fixed, "' was ",
              was->second, " when the step was captured, and is ", now.option(fixed), "; capture it again");
    for (size_t i = 0; i < names.size(); ++i) to[i] = std::bit_cast<uint64_t>(now.option(names[i]));
  };
  out.options = reinterpret_cast<const double*>(context().capture->words(options.size(), fill));
  return out;
}

Philox Optimizer::rounding(uint64_t place, Device device) {
  const bool counted = device_.rounding.defined() || device_.skip.defined() || repeats();
  const bool on_host = !counted || device.kind == Device::cpu;
  const int64_t steps = on_host ? rounding_steps() : rounding_step_;
  const auto stream = static_cast<uint64_t>(steps) << bits_of_place;
  if (on_host) return {rounding_seed_ ^ apart, stream | place, 0};
  if (!device_.rounding.defined()) {
    const OutsideCapture once;
    const std::vector<int64_t> words{static_cast<int64_t>(rounding_seed_ ^ apart), static_cast<int64_t>(stream), 0};
    device_.rounding = from_vector(words, {3}, {i64, device});
  }
  check(device_.rounding.device() == device, name_, ": parameters are on ", device_.rounding.device(), " and ", device,
        ", expected one device for steps that it counts");
  return {0, place, 0, reinterpret_cast<const uint64_t*>(counter(device_.rounding))};
}

void Optimizer::advance_rounding() {
  if (half_update_ != HalfUpdate::stochastic) return;
  if (!device_.rounding.defined()) {
    if (!repeats()) ++rounding_step_;
    return;
  }
  std::array stream{counter(device_.rounding, 1)};
  accelerator(device_.rounding.device()).advance(stream, int64_t{1} << bits_of_place, control_skip());
}

// In the memory where a captured graph looks for it.
void Optimizer::set_rounding_seed(uint64_t seed) {
  rounding_seed_ = seed;
  if (!device_.rounding.defined()) return;
  std::vector<int64_t> words = device_.rounding.to_vector<int64_t>();
  words[0] = static_cast<int64_t>(seed ^ apart);
  raw::copy_into(device_.rounding, from_vector(words, {3}, {i64, device_.rounding.device()}));
}

void Optimizer::set_rounding_steps(int64_t steps) {
  rounding_step_ = steps;
  if (device_.rounding.defined())
    raw::fill_into(raw::slice(device_.rounding, 0, 1, 2, 1),
                   static_cast<double>(static_cast<uint64_t>(steps) << bits_of_place));
}

int64_t Optimizer::rounding_steps() const {
  if (!device_.rounding.defined()) return rounding_step_;
  return device_.rounding.to_vector<int64_t>()[1] >> bits_of_place;
}

}  // namespace loom::optim
