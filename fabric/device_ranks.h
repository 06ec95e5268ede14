// Ranks that also serve memory of their GPUs.
#pragma once

#include <memory>

#include <loom/distributed/communicator.h>

namespace loom {

// What the ranks of `host` communicate by when their tensors are on `device`: `host` itself where it serves that; NCCL
// where all ranks have it; else the host's memory, which rank 0 says, with the reason. Collective; the same Error on
// all ranks, also where some are on GPUs and others are not.
std::shared_ptr<Communicator> ranks_on(Device device, std::shared_ptr<Communicator> host);

}  // namespace loom
