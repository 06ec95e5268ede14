// Threads of the benchmark's own: what the machine can do must not depend on the thread pool that is measured against
// it.
#pragma once

#include <functional>

namespace bench {

// f(i) on `threads` new threads at once, each kept on one core of the affinity mask: the i-th, round and round.
void on_own_cores(int threads, const std::function<void(int)>& f);

// The least seconds from when all begin f(i) until all are done, of many such rounds: a limit is what the machine can
// do, not what it does on average.
double best_seconds(int threads, const std::function<void(int)>& f);

}  // namespace bench
