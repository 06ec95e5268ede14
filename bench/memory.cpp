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

}  // namespace

double resident_mib() { return status_mib("VmRSS:"); }
double peak_resident_mib() { return status_mib("VmHWM:"); }
double resident_of_others_mib() {
  return std::max(0.0, status_mib("RssShmem:") - mib_of("/proc/self/smaps_rollup", "Pss_Shmem:"));
}

void settle_memory() {
  loom::empty_cache();
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
  std::ofstream("/proc/self/clear_refs") << "5";
}

}  // namespace bench
