// Resident memory of this process, from /proc; peers/memory.py does the same.
#pragma once

namespace bench {

double resident_mib();
// What a step's memory is counted in: without pages of files, most of them code that the first step touches, and of
// shared memory a part of each page that other processes have mapped too.
double allocated_mib();
double peak_allocated_mib();  // the most since the start, or since settle_memory()
// Gives freed blocks back to the system and lets the peak begin at what is resident now.
void settle_memory();

}  // namespace bench
