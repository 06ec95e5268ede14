#include <loom/accelerators/plugin.h>

#include <dlfcn.h>

#include <filesystem>

#include <loom/accelerators/error.h>

namespace loom {

namespace {

std::filesystem::path library_folder() {
  Dl_info here{};
  if (dladdr(reinterpret_cast<const void*>(&plugin_symbol), &here) == 0) return {};
  return std::filesystem::path(here.dli_fname).parent_path();
}

std::string last_error() {
  const char* const text = dlerror();
  return text != nullptr ? text : "unknown error";
}

}  // namespace

std::string plugin_path(std::string_view name) { return library_folder() / str("lib", name, ".so"); }

void* plugin_symbol(std::string_view name, const char* symbol, std::string& why) {
  return plugin_symbol_in(plugin_path(name), symbol, why);
}

void* plugin_symbol_in(const std::string& file, const char* symbol, std::string& why) {
  void* const library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);  // never closed: its kernels are in use to the end
  void* const address = library != nullptr ? dlsym(library, symbol) : nullptr;
  if (address == nullptr) why = last_error();
  return address;
}

}  // namespace loom
