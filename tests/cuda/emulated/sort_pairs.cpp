// SPDX-License-Identifier: Apache-2.0
// Stands in for accelerators/cuda/sort_pairs.cu.
#include <loom/accelerators/cuda/sort_pairs.h>

#include <algorithm>
#include <utility>
#include <vector>

#include <queues.h>

#include <loom/accelerators/error.h>

namespace loom::cuda {

namespace {

void sort_now(int64_t* keys, int64_t* positions, int64_t n, int64_t bound) {
  std::vector<std::pair<int64_t, int64_t>> pairs;
  for (int64_t i = 0; i < n; ++i) pairs.emplace_back(keys[i], positions[i]);
  if (bound != std::numeric_limits<int64_t>::max())
    for (const auto& [key, _] : pairs) check(key >= 0 && key < bound, "sort_pairs: a key of ", key, " below ", bound);
  std::ranges::stable_sort(pairs, {}, &std::pair<int64_t, int64_t>::first);
  for (size_t i = 0; i < pairs.size(); ++i) {
    keys[i] = pairs[i].first;
    positions[i] = pairs[i].second;
  }
}

}  // namespace

void sort_pairs(Gpu& gpu, int64_t* keys, int64_t* positions, int64_t n, int64_t bound) {
  emulated::enqueue(gpu.stream(), [=] { sort_now(keys, positions, n, bound); });
}

}  // namespace loom::cuda
