// The one thread pool of the process. Ranks that are threads share it: a call that finds it busy runs its parts itself,
// with the same partition, so that results never depend on who was busy.
#pragma once

#include <cstdint>

namespace loom {

// Threads that kernels use. Default: LOOM_NUM_THREADS, else the cores of the affinity mask divided among the ranks of
// the node that share them (as the launcher's environment tells), at least 1.
int num_threads();
// Overrides the default from now on; n >= 1, else Error. Results that sum over threads depend on this number.
void set_num_threads(int n);
// What num_threads() is from now on where nobody has chosen it (LOOM_NUM_THREADS, set_num_threads); n >= 1. For code
// that knows better than the environment how the ranks of a node share its cores.
void suggest_num_threads(int n);

// From now on this thread runs all parts of its calls itself, so that it never has the pool when another one, who is
// waited for, could use it: for threads that prepare something in the background.
void keep_to_one_thread();

namespace threads_detail {
using Body = void (*)(void* context, int64_t begin, int64_t end);
void run(int64_t count, int64_t grain, Body body, void* context);
}  // namespace threads_detail

// Splits [0, count) into at most num_threads() contiguous parts of at least `grain` and calls f(begin, end) on each.
// Nested calls run serially. The first exception of a part is rethrown in the caller.
template <class F>
void parallel_for(int64_t count, int64_t grain, const F& f) {
  if (count <= 0) return;
  if (count <= grain) {
    f(int64_t{0}, count);
    return;
  }
  threads_detail::run(
      count, grain, [](void* context, int64_t begin, int64_t end) { (*static_cast<const F*>(context))(begin, end); },
      const_cast<F*>(&f));  // NOLINT: the body casts it back to const
}

}  // namespace loom
