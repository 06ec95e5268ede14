// Waiting by looking, for what comes sooner than the system could wake a thread.
#pragma once

#include <thread>

namespace loom {

// A short rest of the core, without giving it away.
inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// True as soon as the condition holds; false when it did not within so many looks, some ten nanoseconds each.
template <class Condition>
bool spin_until(int looks, const Condition& condition) {
  for (int i = 0; i < looks; ++i, relax())
    if (condition()) return true;
  return condition();
}

}  // namespace loom
