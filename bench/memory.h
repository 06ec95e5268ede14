// Resident memory of this process, from /proc; peers/memory.py does the same.
#pragma once

namespace bench {

double resident_mib();
double peak_resident_mib();  // the most since the start, or since settle_memory()
// Of the shared memory in resident_mib(), what counts for the other processes that have it mapped: each page is divided
// among all that do.
double resident_of_others_mib();
// Gives freed blocks back to the system and lets the peak begin at what is resident now.
void settle_memory();

}  // namespace bench
