#include <loom/accelerators/cores.h>

#include <sched.h>

#include <algorithm>
#include <numeric>
#include <span>
#include <thread>

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

void run_on(std::span<const int> cores) {
  const Mask mask = mask_of(cores);
  sched_setaffinity(0, bytes_of(mask), mask.data());  // refused in some containers: the thread stays where it is
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

void leave_core(int core, int turn) {
  std::vector<int> cores = available_core_ids();
  const auto here = std::ranges::find(cores, core);
  if (cores.size() < 2 || here == cores.end()) return;
  const size_t others = cores.size() - 1, at = static_cast<size_t>(here - cores.begin());
  const int target = cores[(at + 1 + static_cast<size_t>(turn) % others) % cores.size()];
  run_on(std::span(&target, 1));
  run_on(cores);
}

}  // namespace loom
