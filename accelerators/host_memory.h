// The host's memory, for who need not ask which accelerator is the host's: CpuMemory's blocks.
#pragma once

#include <cstddef>

namespace loom::host_memory {

void* take(size_t bytes);  // null for none
void give(void* block) noexcept;

}  // namespace loom::host_memory
