// What this machine can do at most, with as many threads as Loom uses, measured.
#pragma once

namespace bench {

double copy_bandwidth();    // bytes read and written, a second; 40 MB each
double update_bandwidth();  // bytes read and written, a second; 40 MB in place
double read_bandwidth();    // bytes read, a second; 40 MB
double fma_peak();          // floating-point operations a second, f32, the widest vectors that the processor has

}  // namespace bench
