// The door to the CPU. Its kernels are compiled once for each instruction set; the widest one that the processor has is
// chosen at first use, or the one that LOOM_CPU names.
#pragma once

#include <string_view>

namespace loom {

class Accelerator;

// Throws Error when LOOM_CPU names a set that this build or this processor lacks.
Accelerator& cpu_accelerator();
// "avx512bf16" (x86-64-v4, and products of bf16), "avx512" (x86-64-v4), "avx2" (x86-64-v3) or "portable" (any x86-64,
// which LOOM_CPU may also call "sse"; any other machine). Equal results, to the bit, are promised within one set only.
std::string_view cpu_instruction_set();
// Outputs in a dimension of the largest tiles with which convolutions of f32 may save products (Winograd):
// LOOM_WINOGRAD, 4 by default, 2, or 0 for none. Throws Error for any other text.
int largest_winograd();

}  // namespace loom
