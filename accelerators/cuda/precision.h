// How products of f32 are computed.
#pragma once

#include <atomic>

namespace loom::cuda {

// Whether products and convolutions of f32 may round their inputs to TF32 (10 bits after the point), which tensor cores
// multiply: LOOM_TF32=1, or set while the program runs.
std::atomic<bool>& allows_tf32();

}  // namespace loom::cuda
