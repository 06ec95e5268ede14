// Memory of the host that a GPU reads and writes by itself.
#pragma once

#include <memory>

#include <loom/accelerators/accelerator.h>

namespace loom {

// When it is released, streams may still be about it: it is not handed out again before they are done.
inline std::shared_ptr<std::byte> pinned_block(Device device, size_t bytes) {
  Accelerator& gpu = accelerator(device);
  return {static_cast<std::byte*>(gpu.allocate_pinned(bytes)), [&gpu](std::byte* block) { gpu.release_pinned(block); }};
}

}  // namespace loom
