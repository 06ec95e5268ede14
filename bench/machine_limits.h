// What this machine can do at most, with as many threads as Loom uses, measured.
#pragma once

namespace bench {

double copy_bandwidth();   // bytes read and written, a second; 40 MB each
double triad_bandwidth();  // the same for a = b + c * s, 120 MB in all
double fma_peak();         // floating-point operations a second, f32, the widest vectors that the processor has
double bf16_peak();        // the same for products of bf16; fma_peak() where the processor has no instruction for them

}  // namespace bench
