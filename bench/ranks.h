// The ranks that take part in a row.
#pragma once

#include <memory>

#include <loom/distributed/communicator.h>

#include "row.h"

namespace bench {

// Those that mpirun started, mode=threaded|inline|automatic; alone: one.
std::unique_ptr<loom::Communicator> ranks_of(const Options& options);

}  // namespace bench
