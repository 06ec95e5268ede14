#include "memory.h"

#include <algorithm>
#include <fstream>
#include <string>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <loom/accelerators/error.h>
#include <loom/accelerators/memory.h>

namespace bench {

namespace {

double mib_of(const char* file, const std::string& key) {
  std::ifstream lines(file);
  for (std::string word; lines >> word;)
    if (double kib = 0; word == key && lines >> kib) return kib / 1024;
  loom::fail("no ", key, " in ", file);
}
double status_mib(const std::string& key) { return mib_of("/proc/self/status", key); }
// Of this process' shared memory, what counts for the others that have it mapped.
double of_others_mib() {
  return std::max(0.0, status_mib("RssShmem:") - mib_of("/proc/self/smaps_rollup", "Pss_Shmem:"));
}

}  // namespace

double resident_mib() { return status_mib("VmRSS:"); }
double allocated_mib() { return status_mib("RssAnon:") + status_mib("RssShmem:") - of_others_mib(); }
// The kernel keeps no peak without files' pages. Those hardly ever go, so that the peak had at most as many as there
// are.
double peak_allocated_mib() { return status_mib("VmHWM:") - status_mib("RssFile:") - of_others_mib(); }

void settle_memory() {
  loom::empty_cache();
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
  std::ofstream("/proc/self/clear_refs") << "5";
}

}  // namespace bench
