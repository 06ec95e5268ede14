// What it costs to hand something to two threads of the pool and wait for them. peers/fork_join.cpp is the same with
// OpenMP.
#include "fork_join.h"

#include <loom/accelerators/threads.h>

#include "record.h"
#include "row.h"

namespace bench {

void run_fork_join(const Options& options) {
  const auto fork = [](const auto& item) {
    loom::parallel_for(2, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) item();
    });
  };
  const auto report = [](const std::string& name, double seconds) { Record(name, seconds * 1e6, "us").print(); };
  measure_forks(fork, report, options.smoke());
}

}  // namespace bench
