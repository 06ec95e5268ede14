#include <loom/fabric/device_ranks.h>

#include <algorithm>
#include <iostream>
#include <utility>
#include <vector>

#include <loom/distributed/nccl.h>
#include <loom/distributed/staged.h>

namespace loom {

namespace {

// What a rank tells the others; empty: it has NCCL.
constexpr const char* on_cpu = "\n";

// Of the first rank that lacks it.
std::string why_not(const std::vector<std::string>& told) {
  const auto lacks = std::ranges::find_if(told, [](const std::string& t) { return !t.empty(); });
  return lacks == told.end() ? "" : str("rank ", lacks - told.begin(), ": ", *lacks);
}

}  // namespace

std::shared_ptr<Communicator> ranks_on(Device device, std::shared_ptr<Communicator> host) {
  if (host->size() == 1 && host->serves(device)) return host;
  const bool served = host->serves(device), gpu = device.kind == Device::cuda;
  const auto told = host->all_gather_bytes(!gpu ? on_cpu : served || nccl_available() ? "" : nccl_description());
  const auto without = std::ranges::count(told, std::string(on_cpu));
  if (without != 0 && without != std::ssize(told))
    throw AgreedError(str("accelerator: ", without, " of ", told.size(),
                          " ranks are on the CPU, the others on GPUs; start as many ranks as there are GPUs, or use ",
                          "accelerator 'cpu'"));
  if (served) return host;
  const std::string missing = why_not(told);
  if (missing.empty()) return nccl_communicator(std::move(host), device);
  if (host->rank() == 0)
    std::cerr << "loom: no NCCL, so what GPUs exchange goes through the host's memory (" + missing + ")\n";
  return staged_communicator(std::move(host), device);
}

}  // namespace loom
