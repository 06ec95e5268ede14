// Pinned memory of the host, one pool for all GPUs of the process.
#pragma once

#include <loom/accelerators/pinned_pool.h>

namespace loom::cuda {

PinnedPool& pinned_memory();

}  // namespace loom::cuda
