// A module is any struct that lists its members once:
//
//   struct Net {
//     nn::Linear fc1{784, 128}, fc2{128, 10};
//     Tensor operator()(const Tensor& x) const { return fc2(relu(fc1(x))); }
//     LOOM_MEMBERS(fc1, fc2)
//   };
//
// No base class, no names as strings: parameters and their names, state, to(), train(), eval(), freeze(), clone() and
// saving derive from that line. Members may be modules, Parameters, Buffers, Training flags, and std::optional,
// std::vector, std::array, std::unique_ptr, std::shared_ptr, std::tuple and std::map<std::string, ..> of these; keys
// equal PyTorch's ("blocks.0.fc1.weight"). A module with other names writes the same members(visitor) by hand.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <loom/autograd/grad_mode.h>
#include <loom/autograd/parameter.h>
#include <loom/autograd/recompute.h>

// Lists a module's members, once.
#define LOOM_MEMBERS(...)                                                                \
  template <class Visitor>                                                               \
  void members(Visitor&& visitor) {                                                      \
    ::loom::nn::detail::visit_members(visitor, #__VA_ARGS__ __VA_OPT__(, ) __VA_ARGS__); \
  }                                                                                      \
  template <class Visitor>                                                               \
  void members(Visitor&& visitor) const {                                                \
    ::loom::nn::detail::visit_members(visitor, #__VA_ARGS__ __VA_OPT__(, ) __VA_ARGS__); \
  }

namespace loom::nn {

// Whether a module behaves as in training (Dropout, BatchNorm); listed as a member, set by train() and eval().
class Training {
 public:
  operator bool() const { return autograd::as_at_forward(value_); }  // NOLINT: it is a flag
  void set(bool value) { value_ = value; }

 private:
  bool value_ = true;
};

namespace detail {
struct AnyVisitor {
  template <class T>
  void operator()(std::string_view, T&&) const {}
};

// "a, b, c" and the three members: calls visitor("a", a), visitor("b", b), visitor("c", c).
template <class Visitor, class... Members>
void visit_members(Visitor&& visitor, [[maybe_unused]] std::string_view names, Members&... members) {
  [[maybe_unused]] const auto next = [&names] {
    const size_t end = std::min(names.find(','), names.size());
    const std::string_view name = names.substr(0, end);
    names.remove_prefix(std::min(names.find_first_not_of(", ", end), names.size()));
    return name;
  };
  (visitor(next(), members), ...);
}
}  // namespace detail

template <class M>
concept Module = requires(M& m) { m.members(detail::AnyVisitor{}); };

inline std::string join(const std::string& prefix, std::string_view name) {
  std::string path = prefix;
  if (!path.empty() && !name.empty()) path += '.';
  return path += name;
}

// Calls f(path, leaf) for every Parameter, Buffer and Training flag under a member, in the order of listing.
template <class T, class F>
void visit_leaves(const std::string& path, T& member, const F& f);

namespace detail {

template <class T>
inline constexpr bool is_leaf =
    std::is_same_v<T, Parameter> || std::is_same_v<T, Buffer> || std::is_same_v<T, Training>;
template <class T>
concept Pointer = requires(T& t) {
  *t;
  static_cast<bool>(t);
} && !requires(T& t) { t.begin(); };
template <class T>
concept Map = requires(T& t) { typename T::mapped_type; };
template <class T>
concept Range = requires(T& t) {
  t.begin();
  t.end();
};
template <class T>
concept Tuple = requires { std::tuple_size<std::remove_const_t<T>>::value; };
template <class T>
inline constexpr bool unsupported = false;

}  // namespace detail

template <class T, class F>
void visit_leaves(const std::string& path, T& member, const F& f) {
  using Plain = std::remove_const_t<T>;
  if constexpr (detail::is_leaf<Plain>) {
    f(path, member);
  } else if constexpr (Module<T>) {
    member.members([&](std::string_view name, auto& part) { visit_leaves(join(path, name), part, f); });
  } else if constexpr (detail::Map<Plain>) {
    for (auto& [name, part] : member) visit_leaves(join(path, name), part, f);
  } else if constexpr (detail::Range<T>) {
    size_t i = 0;
    for (auto& part : member) visit_leaves(join(path, std::to_string(i++)), part, f);
  } else if constexpr (detail::Tuple<T>) {
    size_t i = 0;
    std::apply([&](auto&... parts) { (visit_leaves(join(path, std::to_string(i++)), parts, f), ...); }, member);
  } else if constexpr (std::is_invocable_v<Plain&, const Tensor&> &&
                       (std::is_empty_v<Plain> || std::is_pointer_v<Plain>)) {
    // A function in a Sequential, which has no state. One with members must list them.
  } else if constexpr (detail::Pointer<T>) {
    if (member) visit_leaves(path, *member, f);
  } else {
    static_assert(detail::unsupported<T>, "not a module, a leaf or a container of them: leave it out of LOOM_MEMBERS");
  }
}

template <Module M, class F>
void visit_leaves(M& module, const F& f) {
  visit_leaves(std::string(), module, f);
}

// Parameters (each once, also where tied), with their paths.
template <Module M>
std::vector<NamedTensor> parameters(const M& module) {
  std::vector<NamedTensor> out;
  std::unordered_set<const void*> seen;
  visit_leaves(module, [&]<class Leaf>(const std::string& path, const Leaf& leaf) {
    if constexpr (std::is_same_v<Leaf, Parameter>)
      if (leaf.defined() && seen.insert(leaf.body_pointer().get()).second) out.push_back({path, leaf});
  });
  return out;
}

template <Module M>
std::vector<NamedTensor> buffers(const M& module) {
  std::vector<NamedTensor> out;
  visit_leaves(module, [&]<class Leaf>(const std::string& path, const Leaf& leaf) {
    if constexpr (std::is_same_v<Leaf, Buffer>)
      if (leaf.defined()) out.push_back({path, leaf});
  });
  return out;
}

// What a checkpoint holds: parameters and persistent buffers, tied ones under each of their names, as PyTorch.
template <Module M>
std::vector<NamedTensor> state_dict(const M& module) {
  std::vector<NamedTensor> out;
  visit_leaves(module, [&]<class Leaf>(const std::string& path, const Leaf& leaf) {
    if constexpr (std::is_same_v<Leaf, Parameter>) {
      if (leaf.defined()) out.push_back({path, leaf});
    } else if constexpr (std::is_same_v<Leaf, Buffer>) {
      if (leaf.defined() && leaf.persistent()) out.push_back({path, leaf});
    }
  });
  return out;
}

// Copies values into a state (state_dict(net)) by name, in place, converting dtypes. Checks everything first and
// changes nothing on error: names missing from `values`, unexpected ones (strict), shapes that differ and dtypes of
// another kind (floating, integral, boolean) are all listed.
void load_state(const std::vector<NamedTensor>& state, const std::map<std::string, Tensor>& values, bool strict = true);
// Throws what load_state would throw; reads shapes and dtypes alone.
void check_state(const std::vector<NamedTensor>& state, const std::map<std::string, Tensor>& values,
                 bool strict = true);
template <Module M>
void load_state_dict(M& module, const std::map<std::string, Tensor>& values, bool strict = true) {
  load_state(state_dict(module), values, strict);
}

template <Module M>
void train(M& module, bool mode = true) {
  visit_leaves(module, [&]<class Leaf>(const std::string&, Leaf& leaf) {
    if constexpr (std::is_same_v<Leaf, Training>) leaf.set(mode);
  });
}
template <Module M>
void eval(M& module) {
  train(module, false);
}

// What train() and eval() have set: whether any part is in training; true for a module without parts that ask.
template <Module M>
bool is_training(const M& module) {
  bool asked = false, training = false;
  visit_leaves(module, [&]<class Leaf>(const std::string&, const Leaf& leaf) {
    if constexpr (std::is_same_v<Leaf, Training>) {
      asked = true;
      training = training || leaf;
    }
  });
  return training || !asked;
}

// Moves or converts in place (floating tensors only, for a dtype): optimizers and ties made before stay valid.
void convert_state(const std::vector<NamedTensor>& tensors, const TensorOptions& options);
template <Module M>
void to(M& module, const TensorOptions& options) {
  check(is_floating(options.dtype.value_or(DType::f32)), "to: a module has a floating dtype, got ", *options.dtype);
  convert_state(parameters(module), options);
  convert_state(buffers(module), options);
}

// Parameters stop (freeze) or start again (freeze(net, false)) to require gradients.
template <Module M>
void freeze(M& module, bool frozen = true) {
  for (const auto& p : parameters(module)) Tensor(p.tensor).requires_grad_(!frozen);
}

template <Module M>
void zero_grad(M& module) {
  for (const auto& p : parameters(module)) p.tensor.set_grad({});
}

template <Module M>
int64_t parameter_count(const M& module) {
  int64_t n = 0;
  for (const auto& p : parameters(module)) n += p.tensor.numel();
  return n;
}

// From now on both are one parameter, a's.
inline void tie(const Parameter& a, Parameter& b) { b.share(a); }

// A deep copy: own values, same flags, ties inside the module kept. Refuses modules that hold parts by shared_ptr,
// whose copies would be the same parts.
template <Module M>
M clone(const M& module) {
  M copy(module);
  std::vector<const void*> originals;
  visit_leaves(module, [&]<class Leaf>(const std::string&, const Leaf& leaf) {
    if constexpr (!std::is_same_v<Leaf, Training>) originals.push_back(leaf.body_pointer().get());
  });
  std::unordered_map<const void*, const Parameter*> first;
  size_t i = 0;
  visit_leaves(copy, [&]<class Leaf>(const std::string& path, Leaf& leaf) {
    if constexpr (!std::is_same_v<Leaf, Training>) {
      const void* const original = originals[i++];
      check(!leaf.defined() || leaf.body_pointer().get() != original, "clone: '", path,
            "' is behind a shared_ptr, which a copy of the module shares; hold the part by value");
      if constexpr (std::is_same_v<Leaf, Parameter>) {
        const auto [place, fresh] = first.emplace(original, &leaf);
        if (!fresh && leaf.defined()) leaf.share(*place->second);
      }
    }
  });
  return copy;
}

// In its scope modules are made without running their initialisers: parameters have shapes and undefined values.
class SkipInit {
 public:
  SkipInit() : previous_(context().skip_init) { context().skip_init = true; }
  ~SkipInit() { context().skip_init = previous_; }
  SkipInit(const SkipInit&) = delete;
  SkipInit& operator=(const SkipInit&) = delete;

 private:
  bool previous_;
};

}  // namespace loom::nn
