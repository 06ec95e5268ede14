// What products and convolutions may do with digits and bits for the sake of speed.
#pragma once

#include <atomic>

namespace loom::cuda {

class Gpu;

// Whether products and convolutions of f32 may round their inputs to TF32 (10 bits after the point), which tensor cores
// multiply: LOOM_TF32=1, or set while the program runs.
std::atomic<bool>& allows_tf32();

// Whether sums may be taken in an order that depends on timing, so that bits differ from run to run: the gradient of
// attention, which is faster then and takes less memory, and convolutions. LOOM_DETERMINISTIC=0, or set likewise.
std::atomic<bool>& allows_any_order();

// Whether products, convolutions and attention choose between the kernels that the libraries propose by the clock, when
// a shape comes first: LOOM_AUTOTUNE=1, or set likewise. Kernels differ in the last bits, so ranks and runs may then.
std::atomic<bool>& autotunes();

// Whether GELU, its gradient and sums for biases are done by the kernels of products: LOOM_EPILOGUES=1 or 0, or set
// likewise through `epilogues`; else from Hopper on (before, a kernel of their own was faster: llm.c, PR 338).
enum class Epilogues : int { by_device, off, on };
std::atomic<Epilogues>& epilogues();
bool uses_epilogues(const Gpu& gpu);

}  // namespace loom::cuda
