// Calls of modules, told to observers (accelerators/profile.h): the layers of this folder tell of themselves, by their
// type and, under a model's names, by their path in it; a module of the user's own does so with one line:
//
//   Tensor operator()(const Tensor& x) const {
//     const nn::ModuleRange range(*this);  // "blocks.3.mlp (Mlp)"
//     return ...
//   }
#pragma once

#include <string>
#include <typeinfo>
#include <unordered_map>
#include <utility>
#include <vector>

#include <loom/accelerators/profile.h>
#include <loom/nn/module.h>

namespace loom::nn {

// For a scope, modules below `root` that this thread calls have their paths as names. A module that Fabric has set up
// is such a root in each forward.
class ModuleNames;

// From here to the end of the scope the module runs. Inside a range of the same module: nothing.
class ModuleRange {
 public:
  template <class M>
  explicit ModuleRange(const M& module) {
    if (profile::observed()) [[unlikely]]
      begin(&module, typeid(M));
  }
  ~ModuleRange() {
    if (type_ != nullptr) [[unlikely]]
      end();
  }
  ModuleRange(const ModuleRange&) = delete;
  ModuleRange& operator=(const ModuleRange&) = delete;

 private:
  void begin(const void* module, const std::type_info& type);
  void end();

  const std::type_info* type_ = nullptr;  // null: nobody was told
  const void* module_;
  const void* name_;  // ModuleNames' of it
  const ModuleRange* outer_;
  profile::Range range_;
};

// Calls f(path, module) for a module and all below it, outer ones first.
template <class T, class F>
void visit_modules(const std::string& path, const T& member, const F& f) {
  if constexpr (detail::is_leaf<T>) {
  } else if constexpr (Module<const T>) {
    f(path, member);
    member.members([&](std::string_view name, const auto& part) { visit_modules(join(path, name), part, f); });
  } else if constexpr (detail::Map<T>) {
    for (const auto& [name, part] : member) visit_modules(join(path, name), part, f);
  } else if constexpr (detail::Range<const T>) {
    size_t i = 0;
    for (const auto& part : member) visit_modules(join(path, std::to_string(i++)), part, f);
  } else if constexpr (detail::Tuple<T>) {
    size_t i = 0;
    std::apply([&](const auto&... parts) { (visit_modules(join(path, std::to_string(i++)), parts, f), ...); }, member);
  } else if constexpr (detail::Pointer<const T>) {
    if (member) visit_modules(path, *member, f);
  }
}

class ModuleNames {
 public:
  template <Module M>
  explicit ModuleNames(const M& root) {
    if (!profile::observed()) [[likely]]
      return;
    visit_modules({}, root, [this]<class T>(const std::string& path, const T& module) {
      names_[&module].push_back({&typeid(T), path});
    });
    enter();
  }
  ~ModuleNames() {
    if (!names_.empty()) leave();
  }
  ModuleNames(const ModuleNames&) = delete;
  ModuleNames& operator=(const ModuleNames&) = delete;

  struct Name {
    const std::type_info* type;
    std::string path;
  };
  // In this thread's scopes; null: the module is not in one of their trees.
  static const Name* name_of(const void* module, const std::type_info& type);

 private:
  const Name* find(const void* module, const std::type_info& type) const;
  void enter();
  void leave();

  std::unordered_map<const void*, std::vector<Name>> names_;  // a module's first part has its address
  const ModuleNames* outer_ = nullptr;
};

}  // namespace loom::nn
