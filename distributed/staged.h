// Memory of a GPU over a communicator of the host, where there is no NCCL: it goes through pinned memory piece by
// piece, so that the device's copies run beside the host's collective. Sums are the host communicator's, in rank order.
//
// Collectives run in issue order in a thread of their own; Work::wait waits on the host until the last piece has been
// handed back to the device, and makes the current stream wait for its copy. send and recv wait for neither.
#pragma once

#include <cstdint>
#include <memory>

#include <loom/distributed/communicator.h>

namespace loom {

struct StagedOptions {
  CommunicatorOptions communicator = CommunicatorOptions::from_environment();
  int64_t piece_bytes = int64_t{8} << 20;  // of pinned memory, two of them at a time; tests lower it
};

// The ranks of `host`, which also serves memory of the host. Collective.
std::unique_ptr<Communicator> staged_communicator(std::shared_ptr<Communicator> host, Device device,
                                                  const StagedOptions& options = {});

}  // namespace loom
