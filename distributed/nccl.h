// NCCL: collectives between GPUs. It lies in a plugin of its own, libloom_nccl.so, which is loaded at the first
// question; LOOM_NCCL=0 keeps it out, LOOM_NCCL_PLUGIN names its file, which otherwise lies beside libloom.
//
// Sums are in NCCL's own order: the same bits on all ranks, and from one run to the next with the same ranks and
// algorithm (NCCL_ALGO, NCCL_PROTO), but not those of the other communicators; 16-bit floats are rounded between
// additions. Whether NaN wins min and max is NCCL's choice too.
//
// All groups of a rank share the device's communication stream, so ranks issue collectives on GPUs in one order across
// their groups. send and recv of device memory go by way of the host (staged.h), as NCCL knows neither tags nor
// messages that pass each other.
//
// A collective that does not end within the timeout, an error that the library finds meanwhile, and abort end the group
// and those it was split from or into: what is under way on the device is given up, and every rank of the process
// raises the same text. A second later the host's ranks are ended too (over MPI: the job), as the others cannot go on.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <loom/distributed/communicator.h>

namespace loom {

bool nccl_available();
const std::string& nccl_description();  // "NCCL 2.28.9 (the library's file)", or why there is none

// As CommunicatorOptions::from_environment, but 10 minutes where LOOM_TIMEOUT says nothing.
CommunicatorOptions nccl_options();

// The ranks of `host`, each with a GPU of its own; memory of the host goes over `host`. Collective; throws the same
// Error on all ranks.
std::unique_ptr<Communicator> nccl_communicator(std::shared_ptr<Communicator> host, Device device,
                                                const CommunicatorOptions& options = nccl_options());

// What the plugin hands over by its entry `loom_nccl`.
struct NcclPlugin {
  uint64_t abi = 0;  // as CudaPlugin::abi, of the headers of distributed/ too
  std::string description;
  std::unique_ptr<Communicator> (*make)(std::shared_ptr<Communicator> host, Device device,
                                        const CommunicatorOptions& options) = nullptr;
};
using NcclEntry = void (*)(NcclPlugin&);

}  // namespace loom
