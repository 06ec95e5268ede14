// What products and convolutions may do with digits and bits for the sake of speed.
#pragma once

#include <atomic>

namespace loom::cuda {

// Whether products and convolutions of f32 may round their inputs to TF32 (10 bits after the point), which tensor cores
// multiply: LOOM_TF32=1, or set while the program runs.
std::atomic<bool>& allows_tf32();

// Whether sums may be taken in an order that depends on timing, so that bits differ from run to run: the gradient of
// attention, which is faster then and takes less memory, and convolutions. LOOM_DETERMINISTIC=0, or set likewise.
std::atomic<bool>& allows_any_order();

}  // namespace loom::cuda
