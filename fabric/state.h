// What a checkpoint holds, and how things get into it and out again.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <loom/nn/module.h>
#include <loom/tensor/tensor.h>

namespace loom {

// The state of one thing: tensors by name, and small values as text (numbers in a form that reads back bit for bit).
struct StateDict {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> values;
  StateDict(std::map<std::string, Tensor> t = {}, std::map<std::string, std::string> v = {})  // NOLINT: tensors alone
      : tensors(std::move(t)), values(std::move(v)) {}
  const std::string& value(const std::string& name) const;  // throws Error where there is none
};

std::string number_to_text(double value);
// These throw Error where the text is no such number, or too large.
double text_to_number(const std::string& text);
int64_t text_to_signed(const std::string& text);
uint64_t text_to_unsigned(const std::string& text);
template <class T>
T text_to_integer(const std::string& text) {
  const auto wide = [&] {
    if constexpr (std::is_signed_v<T>)
      return text_to_signed(text);
    else
      return text_to_unsigned(text);
  }();
  check(static_cast<decltype(wide)>(static_cast<T>(wide)) == wide, "'", text, "' does not fit its variable");
  return static_cast<T>(wide);
}

// Anything with state_dict() and load_state_dict() over tensors by name (optimizers, schedulers), or over StateDict.
template <class T>
concept Stateful = requires(T& t) {
  { t.state_dict() } -> std::convertible_to<StateDict>;
  t.load_state_dict(t.state_dict());
};
// Data loaders.
template <class T>
concept Positioned = requires(T& t) { t.load_state(t.state()); };

// One named thing of a State: a reference; what it refers to outlives the call it is passed to.
class StateEntry {
 public:
  std::function<StateDict()> save;
  // Checks everything first; on Error nothing has changed. strict: missing and unexpected names are errors.
  std::function<void(const StateDict&, bool strict)> load;

  StateEntry(std::function<StateDict()> s, std::function<void(const StateDict&, bool)> l)
      : save(std::move(s)), load(std::move(l)) {}

  template <class T>
    requires(!std::is_same_v<std::remove_cv_t<T>, StateEntry>)
  StateEntry(T& object) : StateEntry(entry_of(object)) {}  // NOLINT: {"model", model}

 private:
  template <class T>
  static StateEntry entry_of(T& object);
  static StateEntry of_tensors(const std::function<std::vector<NamedTensor>()>& state);
  static StateEntry of_number(const std::function<std::string()>& get,
                              const std::function<void(const std::string&)>& set);
  static StateEntry of_tensor(const Tensor& tensor);
};

using State = std::vector<std::pair<std::string, StateEntry>>;

template <class T>
StateEntry StateEntry::entry_of(T& object) {
  if constexpr (requires { object.fabric_wrapped(); }) {
    return entry_of(object.fabric_wrapped());
  } else if constexpr (std::is_base_of_v<Tensor, std::remove_cv_t<T>>) {
    return of_tensor(object);
  } else if constexpr (nn::Module<T>) {
    return of_tensors([&object] { return nn::state_dict(object); });
  } else if constexpr (Stateful<T>) {
    return {[&object] { return StateDict(object.state_dict()); },
            [&object](const StateDict& state, bool) {
              if constexpr (requires { object.load_state_dict(state); })
                object.load_state_dict(state);
              else
                object.load_state_dict(state.tensors);
            }};
  } else if constexpr (Positioned<T>) {
    return {[&object] {
              const auto s = object.state();
              return StateDict{{},
                               {{"epoch", std::to_string(s.epoch)},
                                {"position", std::to_string(s.position)},
                                {"seed", std::to_string(s.seed)}}};
            },
            [&object](const StateDict& state, bool) {
              auto s = object.state();
              s.epoch = text_to_integer<int64_t>(state.value("epoch"));
              s.position = text_to_integer<int64_t>(state.value("position"));
              s.seed = text_to_integer<uint64_t>(state.value("seed"));
              check(s.epoch >= 0 && s.position >= 0, "a loader cannot be at sample ", s.position, " of epoch ",
                    s.epoch);
              object.load_state(s);
            }};
  } else if constexpr (std::is_same_v<T, std::string>) {
    return of_number([&object] { return object; }, [&object](const std::string& text) { object = text; });
  } else if constexpr (std::is_floating_point_v<T>) {
    return of_number([&object] { return number_to_text(object); },
                     [&object](const std::string& text) { object = static_cast<T>(text_to_number(text)); });
  } else {
    static_assert(
        std::is_integral_v<T> && !std::is_const_v<T>,
        "a checkpoint takes modules, optimizers, schedulers, loaders, tensors, numbers and strings (not const)");
    return of_number([&object] { return std::to_string(object); },
                     [&object](const std::string& text) { object = text_to_integer<T>(text); });
  }
}

}  // namespace loom
