// SPDX-License-Identifier: Apache-2.0
// Contexts of the emulated devices: which devices this process has one on, as a real one takes hundreds of megabytes.
// As in CUDA a thread's device gets one when the thread chooses it, and at almost every call. LOOM_EMULATED_CONTEXTS=1
// has the process say at its end which it has.
#pragma once

namespace loom::cuda::emulated {

inline constexpr int devices = 4;

void make_context(int device);
bool has_context(int device);

}  // namespace loom::cuda::emulated
