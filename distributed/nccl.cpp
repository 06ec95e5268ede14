// The door to NCCL.
#include <loom/distributed/nccl.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include <loom/accelerators/cuda_abi.h>
#include <loom/accelerators/error.h>
#include <loom/accelerators/plugin.h>

namespace loom {

namespace {

NcclPlugin load() {
  NcclPlugin plugin;
  const char* const wanted = std::getenv("LOOM_NCCL");
  if (wanted != nullptr && std::string_view(wanted) == "0") {
    plugin.description = "LOOM_NCCL=0";
    return plugin;
  }
  const char* const named = std::getenv("LOOM_NCCL_PLUGIN");
  const std::string file = named != nullptr ? named : plugin_path("loom_nccl");
  if (!std::filesystem::exists(file)) {
    plugin.description = str("built without NCCL: there is no ", file);
    return plugin;
  }
  void* const entry = plugin_symbol_in(file, "loom_nccl", plugin.description);
  if (entry == nullptr) return plugin;
  reinterpret_cast<NcclEntry>(entry)(plugin);
  if (plugin.abi != interface_digest(LOOM_RANKS_INTERFACE)) {
    plugin.make = nullptr;
    plugin.description = str(file, " is of another build than libloom.so");
  }
  return plugin;
}

const NcclPlugin& plugin() {
  static const NcclPlugin loaded = load();
  return loaded;
}

}  // namespace

bool nccl_available() { return plugin().make != nullptr; }

const std::string& nccl_description() { return plugin().description; }

CommunicatorOptions nccl_options() {
  CommunicatorOptions options = CommunicatorOptions::from_environment();
  if (std::getenv("LOOM_TIMEOUT") == nullptr) options.timeout = std::chrono::minutes(10);
  return options;
}

std::unique_ptr<Communicator> nccl_communicator(std::shared_ptr<Communicator> host, Device device,
                                                const CommunicatorOptions& options) {
  host->agree(nccl_available() ? "" : "no NCCL: " + nccl_description());
  return plugin().make(std::move(host), device, options);
}

}  // namespace loom
