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

// Anything with state_dict() and load_state_dict() over tensors by name (optimizers, schedulers), or over StateDict;
// with check_state_dict() over tensors by name, which throws what load_state_dict() would, no copy is made before
// loading; with state_dict_on(rank), only that rank gets the whole where no other needs it.
template <class T>
concept Stateful = requires(T& t) {
  { t.state_dict() } -> std::convertible_to<StateDict>;
  t.load_state_dict(t.state_dict());
};
// Data loaders.
template <class T>
concept Positioned = requires(T& t) {
  t.check_state(t.state());
  t.load_state(t.state());
  { t.describe() } -> std::convertible_to<std::string>;
};

// One named thing of a State: a reference; what it refers to outlives the call it is passed to.
class StateEntry {
 public:
  std::function<StateDict()> save;
  // Throws Error where load would; changes nothing. Tensors of more than one element come with shape and dtype but
  // without values, which load reads from the file. None: load finds out, and is undone with what save gave before.
  std::function<void(const StateDict&, bool strict)> verify;
  // strict: missing and unexpected names are errors. On Error nothing has changed.
  std::function<void(StateDict, bool strict)> load;

  // save for one rank alone, which the others need not hold; none: save. Collective where save is.
  std::function<StateDict(int rank)> save_on;
  StateDict saved_for(int rank) const { return save_on ? save_on(rank) : save(); }

  StateEntry(std::function<StateDict()> s, std::function<void(const StateDict&, bool)> v,
             std::function<void(StateDict, bool)> l)
      : save(std::move(s)), verify(std::move(v)), load(std::move(l)) {}
  StateEntry(std::function<StateDict()> s, std::function<void(StateDict, bool)> l)
      : StateEntry(std::move(s), nullptr, std::move(l)) {}

  template <class T>
    requires(!std::is_same_v<std::remove_cv_t<T>, StateEntry>)
  StateEntry(T& object) : StateEntry(entry_of(object)) {}  // NOLINT: {"model", model}

 private:
  template <class T>
  static StateEntry entry_of(T& object);
  template <class T>
  static StateEntry of_stateful(T& object);
  template <class T>
  static StateEntry of_loader(T& object);
  template <class T>
  static StateEntry of_value(T& object, std::string (*write)(T), T (*read)(const std::string&));
  static StateEntry of_tensors(const std::function<std::vector<NamedTensor>()>& state);
  static StateEntry of_tensor(const Tensor& tensor);
};

using State = std::vector<std::pair<std::string, StateEntry>>;

template <class T>
StateEntry StateEntry::of_stateful(T& object) {
  const auto save = [&object] { return StateDict(object.state_dict()); };
  const auto load = [&object](StateDict state, bool) {
    if constexpr (requires { object.load_state_dict(state); })
      object.load_state_dict(std::move(state));
    else
      object.load_state_dict(std::move(state.tensors));
  };
  StateEntry out(save, load);
  if constexpr (requires(const StateDict& state) { object.check_state_dict(state.tensors); })
    out.verify = [&object](const StateDict& state, bool) { object.check_state_dict(state.tensors); };
  if constexpr (requires { object.state_dict_on(0); })
    out.save_on = [&object](int rank) { return StateDict(object.state_dict_on(rank)); };
  return out;
}

// Where a loader stands, and over what: a position means nothing to a loader of other samples.
template <class T>
StateEntry StateEntry::of_loader(T& object) {
  const auto read = [&object](const StateDict& saved) {
    const std::string here = object.describe();
    const std::string& there = saved.value("over");
    check(there == here, "the checkpoint's loader goes over ", there, ", the one here over ", here,
          "; set up the loaders that the checkpoint was saved with, in that order, or new ones after load, or set "
          "strict=false");
    auto s = object.state();
    s.epoch = text_to_integer<int64_t>(saved.value("epoch"));
    s.position = text_to_integer<int64_t>(saved.value("position"));
    s.seed = text_to_integer<uint64_t>(saved.value("seed"));
    object.check_state(s);
    return s;
  };
  // Not strict: a loader over something else starts where it is.
  const auto wanted = [&object](const StateDict& saved, bool strict) {
    return strict || saved.value("over") == object.describe();
  };
  return {[&object] {
            const auto s = object.state();
            return StateDict{{},
                             {{"epoch", std::to_string(s.epoch)},
                              {"over", object.describe()},
                              {"position", std::to_string(s.position)},
                              {"seed", std::to_string(s.seed)}}};
          },
          [=](const StateDict& saved, bool strict) {
            if (wanted(saved, strict)) read(saved);
          },
          [=, &object](const StateDict& saved, bool strict) {
            if (wanted(saved, strict)) object.load_state(read(saved));
          }};
}

template <class T>
StateEntry StateEntry::of_value(T& object, std::string (*write)(T), T (*read)(const std::string&)) {
  return {[&object, write] {
            return StateDict{{}, {{"value", write(object)}}};
          },
          [read](const StateDict& saved, bool) { read(saved.value("value")); },
          [&object, read](const StateDict& saved, bool) { object = read(saved.value("value")); }};
}

template <class T>
StateEntry StateEntry::entry_of(T& object) {
  if constexpr (requires { object.state_entry(); }) {
    return object.state_entry();
  } else if constexpr (requires { object.fabric_wrapped(); }) {
    return entry_of(object.fabric_wrapped());
  } else if constexpr (std::is_base_of_v<Tensor, std::remove_cv_t<T>>) {
    return of_tensor(object);
  } else if constexpr (nn::Module<T>) {
    return of_tensors([&object] { return nn::state_dict(object); });
  } else if constexpr (Stateful<T>) {
    return of_stateful(object);
  } else if constexpr (Positioned<T>) {
    return of_loader(object);
  } else if constexpr (std::is_same_v<T, std::string>) {
    return of_value<T>(
        object, [](T text) { return text; }, [](const std::string& text) { return text; });
  } else if constexpr (std::is_floating_point_v<T>) {
    return of_value<T>(
        object, [](T number) { return number_to_text(number); },
        [](const std::string& text) { return static_cast<T>(text_to_number(text)); });
  } else {
    static_assert(
        std::is_integral_v<T> && !std::is_const_v<T>,
        "a checkpoint takes modules, optimizers, schedulers, loaders, tensors, numbers and strings (not const)");
    return of_value<T>(
        object, [](T number) { return std::to_string(number); },
        [](const std::string& text) { return text_to_integer<T>(text); });
  }
}

}  // namespace loom
