// What the plugin makes.
#pragma once

#include <memory>

#include <loom/distributed/communicator.h>

namespace loom::nccl {

std::unique_ptr<Communicator> make_communicator(std::shared_ptr<Communicator> host, Device device,
                                                const CommunicatorOptions& options);

}  // namespace loom::nccl
