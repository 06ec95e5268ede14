// What this machine can do at most, with as many threads as Loom uses, measured. The threads are not Loom's: one for
// each core of the affinity mask, kept there.
#pragma once

namespace bench {

// Where memory lies: in pages as the system gives them to a plain program (4 KiB where nothing else is set), or in huge
// ones, which are asked for, as Loom's large blocks do.
enum class Pages { usual, huge };

// How it is copied: by the best of memcpy and a loop, or also by stores past the caches and the processor's own copy.
enum class Ways { plain, all };

double copy_bandwidth(Pages pages, Ways ways);  // bytes read and written, a second; 40 MB each
double triad_bandwidth();                       // the same for a = b + c * s, 120 MB in all
double fma_peak();   // floating-point operations a second, f32, the widest vectors that the processor has
double bf16_peak();  // the same for products of bf16; fma_peak() where the processor has no instruction for them

}  // namespace bench
