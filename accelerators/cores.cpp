#include <loom/accelerators/cores.h>

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <numeric>
#include <span>
#include <thread>

#include <loom/accelerators/error.h>

namespace loom {

namespace {

constexpr size_t most_sets = 1024;  // of 1024 cores each

using Mask = std::vector<cpu_set_t>;

size_t bytes_of(const Mask& mask) { return mask.size() * sizeof(cpu_set_t); }

Mask mask_of(std::span<const int> cores) {
  Mask mask(static_cast<size_t>(std::ranges::max(cores)) / CPU_SETSIZE + 1);
  for (const int core : cores) CPU_SET_S(static_cast<size_t>(core), bytes_of(mask), mask.data());
  return mask;
}

bool run_on(std::span<const int> cores) {
  const Mask mask = mask_of(cores);
  return sched_setaffinity(0, bytes_of(mask), mask.data()) == 0;  // some containers refuse
}

// `core` and those that are other threads of the same, as "0,4" or "0-1".
std::vector<int> threads_of(int core) {
  std::ifstream file(str("/sys/devices/system/cpu/cpu", core, "/topology/thread_siblings_list"));
  std::vector<int> all{core};
  for (int first = 0; file >> first;) {
    int last = first;
    if (file.peek() == '-') file.ignore() >> last;
    for (int i = first; i <= last; ++i) all.push_back(i);
    file.ignore();  // the comma
  }
  return all;
}

}  // namespace

std::vector<int> available_core_ids() {
  for (size_t sets = 1; sets <= most_sets; sets *= 2) {  // the kernel's own mask may be wider
    Mask mask(sets);
    if (sched_getaffinity(0, bytes_of(mask), mask.data()) != 0) continue;
    std::vector<int> cores;
    cores.reserve(static_cast<size_t>(CPU_COUNT_S(bytes_of(mask), mask.data())));
    for (size_t core = 0; core < sets * CPU_SETSIZE; ++core)
      if (CPU_ISSET_S(core, bytes_of(mask), mask.data())) cores.push_back(static_cast<int>(core));
    if (!cores.empty()) return cores;
  }
  std::vector<int> cores(std::max(1u, std::thread::hardware_concurrency()));
  std::iota(cores.begin(), cores.end(), 0);
  return cores;
}

int available_cores() {
  static const int cores = static_cast<int>(available_core_ids().size());
  return cores;
}

int current_core() { return sched_getcpu(); }

bool leave_core(int core, int turn) {
  const std::vector<int> cores = available_core_ids(), near = threads_of(core);
  std::vector<int> others = cores;
  std::ranges::rotate(others, std::ranges::upper_bound(others, core));  // what comes after it, then what comes before
  std::erase(others, core);
  std::vector<int> far = others;
  std::erase_if(far, [&](int other) { return std::ranges::find(near, other) != near.end(); });
  if (!far.empty()) others = far;
  if (others.empty()) return false;
  const int target = others[static_cast<size_t>(turn) % others.size()];
  return run_on(std::span(&target, 1)) && run_on(cores) && current_core() != core;
}

}  // namespace loom
