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

// A rest between looks. Now and then it lets others have the core: what is waited for may be waiting for it.
inline void rest(int look) {
  if (look % 64 == 63)
    std::this_thread::yield();
  else
    relax();
}

// True as soon as the condition holds; false when it did not within so many looks, some ten nanoseconds each.
template <class Condition>
bool spin_until(int looks, const Condition& condition) {
  for (int i = 0; i < looks; ++i, rest(i))
    if (condition()) return true;
  return condition();
}

}  // namespace loom
