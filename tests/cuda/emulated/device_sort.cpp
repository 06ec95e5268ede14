// SPDX-License-Identifier: Apache-2.0
// Stands in for accelerators/cuda/device_sort.cu.
#include <loom/accelerators/cuda/device_sort.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include <queues.h>

namespace loom::cuda {

namespace {

// Into the other arrays.
void sort_now(const Pairs& pairs, int bits) {
  const uint64_t mask = bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1;
  std::vector<int64_t> order(static_cast<size_t>(pairs.count));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](int64_t i) { return pairs.keys[i] & mask; });
  for (size_t i = 0; i < order.size(); ++i) {
    pairs.other_keys[i] = pairs.keys[order[i]];
    pairs.other_values[i] = pairs.values[order[i]];
  }
}

}  // namespace

void sort_pairs(Gpu& gpu, Pairs& pairs, int bits) {
  emulated::enqueue(gpu.stream(), [=] { sort_now(pairs, bits); });
  std::swap(pairs.keys, pairs.other_keys);
  std::swap(pairs.values, pairs.other_values);
}

}  // namespace loom::cuda
