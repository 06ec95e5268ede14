// Ranges for NVIDIA's tools (Nsight Systems, Nsight Compute), in the domain "loom" of NVTX.
#pragma once

#include <string>

#include <loom/accelerators/profile.h>

namespace loom::nvtx {

// Whether a tool is there: NVTX_INJECTION64_PATH names its library, which is loaded. Once.
bool attach();
// Only where one is. A range of this thread begins; the one that began last ends.
void push(const std::string& name, Activity activity);
void pop();

}  // namespace loom::nvtx
