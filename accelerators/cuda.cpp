// The door to CUDA: its plugin is loaded at the first question. LOOM_CUDA=0 keeps it out; LOOM_CUDA_PLUGIN names its
// file, which otherwise lies beside libloom.
#include <loom/accelerators/cuda.h>

#include <cstdlib>
#include <filesystem>
#include <string_view>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cuda_abi.h>
#include <loom/accelerators/error.h>
#include <loom/accelerators/plugin.h>

namespace loom {

namespace {

std::string plugin_file() {
  const char* const named = std::getenv("LOOM_CUDA_PLUGIN");
  return named != nullptr ? named : plugin_path("loom_cuda");
}

CudaPlugin load() {
  CudaPlugin plugin;
  const char* const wanted = std::getenv("LOOM_CUDA");
  if (wanted != nullptr && std::string_view(wanted) == "0") {
    plugin.description = "LOOM_CUDA=0";
    return plugin;
  }
  const std::string file = plugin_file();
  if (!std::filesystem::exists(file)) {
    plugin.description = str("built without CUDA: there is no ", file);
    return plugin;
  }
  void* const entry = plugin_symbol_in(file, "loom_cuda_devices", plugin.description);
  if (entry == nullptr) return plugin;
  const uint64_t abi = interface_digest(LOOM_INTERFACE);
  try {
    plugin.abi = abi;
    reinterpret_cast<CudaEntry>(entry)(plugin);
  } catch (const Error& error) {  // a driver that fails is none
    plugin = CudaPlugin();
    plugin.description = error.what();
    return plugin;
  }
  if (plugin.abi != abi) {
    plugin = CudaPlugin();
    plugin.description = str(file, " is of another build than libloom.so");
  }
  return plugin;
}

const CudaPlugin& plugin() {
  static const CudaPlugin loaded = load();
  return loaded;
}

}  // namespace

Accelerator& cuda_accelerator(int index) {
  check(index >= 0 && index < plugin().devices, "device cuda:", index, ": there are ", plugin().devices,
        " CUDA devices (", plugin().description, ")");
  return *plugin().device(index);
}

int cuda_device_count() { return plugin().devices; }

const std::string& cuda_description() { return plugin().description; }

const std::vector<std::string>& cuda_device_ids() { return plugin().ids; }

bool cuda_was_built() { return std::filesystem::exists(plugin_file()); }

const std::string& cuda_libraries() { return plugin().libraries; }

}  // namespace loom
