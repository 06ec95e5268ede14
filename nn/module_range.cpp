#include <loom/nn/module_range.h>

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

namespace loom::nn {

namespace {

thread_local constinit const ModuleRange* innermost = nullptr;
thread_local constinit const ModuleNames* innermost_names = nullptr;

// "Linear", "Sequential<Linear, ReLU>"
std::string type_name(const std::type_info& type) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> readable(
      abi::__cxa_demangle(type.name(), nullptr, nullptr, &status), &std::free);
  std::string name = status == 0 ? readable.get() : type.name();
  for (const std::string_view own : {"loom::nn::", "(anonymous namespace)::"})
    for (size_t at = 0; (at = name.find(own, at)) != std::string::npos;) name.erase(at, own.size());
  return name;
}

// "path (Type)"; without a path where none is known.
std::string text_of(const ModuleNames::Name* name, const std::type_info& type) {
  if (name == nullptr) return type_name(type);
  return name->path.empty() ? type_name(*name->type) : str(name->path, " (", type_name(*name->type), ")");
}

}  // namespace

void ModuleRange::begin(const void* module, const std::type_info& type) {
  const ModuleNames::Name* const name = ModuleNames::name_of(module, type);
  if (innermost != nullptr && innermost->module_ == module)
    if (*innermost->type_ == type || (name != nullptr && innermost->name_ == name)) return;
  range_.begin(Activity::module, {text_of(name, type)});
  type_ = &type;
  module_ = module;
  name_ = name;
  outer_ = std::exchange(innermost, this);
}

void ModuleRange::end() { innermost = outer_; }

void ModuleNames::enter() { outer_ = std::exchange(innermost_names, this); }
void ModuleNames::leave() { innermost_names = outer_; }

// Of that type; where a base speaks for its module, the innermost module that begins there.
const ModuleNames::Name* ModuleNames::find(const void* module, const std::type_info& type) const {
  const auto there = names_.find(module);
  if (there == names_.end()) return nullptr;
  const auto same = std::ranges::find_if(there->second, [&](const Name& n) { return *n.type == type; });
  return same != there->second.end() ? &*same : &there->second.back();
}

const ModuleNames::Name* ModuleNames::name_of(const void* module, const std::type_info& type) {
  for (const ModuleNames* names = innermost_names; names != nullptr; names = names->outer_)
    if (const Name* const found = names->find(module, type)) return found;
  return nullptr;
}

}  // namespace loom::nn
