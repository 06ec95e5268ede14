// Which part of an epoch's order belongs to a rank: torch.utils.data.DistributedSampler's arithmetic.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <loom/accelerators/error.h>

namespace loom::data {

struct Shard {
  int64_t num_replicas = 1, rank = 0;
  // Unequal shares are made equal by repeating from the order's start; or by dropping its tail; or, exact, left as they
  // are: nothing is repeated or lost, and some ranks get one less (evaluation).
  bool drop_last = false, exact = false;

  bool whole() const { return num_replicas == 1; }
  void validate(const char* what) const {
    check(num_replicas >= 1, what, ": num_replicas is ", num_replicas, ", expects at least 1");
    check(rank >= 0 && rank < num_replicas, what, ": rank ", rank, " is out of range for ", num_replicas,
          " replicas, expects 0 to ", num_replicas - 1);
    check(!(drop_last && exact), what, ": drop_last and exact exclude each other");
  }

  // The largest share of `total` that a rank gets, and this rank's.
  int64_t largest(int64_t total) const { return drop_last ? total / num_replicas : ceil_of(total, num_replicas); }
  int64_t count(int64_t total) const {
    if (!exact) return largest(total);
    return total / num_replicas + (rank < total % num_replicas ? 1 : 0);
  }

  // This rank's part of what is left of `order` after the ranks together have consumed its first `consumed` entries.
  // Because only the common count matters, a run may be resumed with another number of ranks.
  template <class T>
  std::vector<T> of(const std::vector<T>& order, int64_t consumed = 0) const {
    const auto total = static_cast<int64_t>(order.size());
    const int64_t left = std::max<int64_t>(0, total - consumed);
    std::vector<T> out;
    out.reserve(static_cast<size_t>(count(left)));
    for (int64_t i = 0; i < count(left); ++i) {
      const int64_t position = consumed + rank + i * num_replicas;
      out.push_back(order[static_cast<size_t>(position < total ? position : (position - total) % total)]);
    }
    return out;
  }

 private:
  static int64_t ceil_of(int64_t a, int64_t b) { return (a + b - 1) / b; }
};

}  // namespace loom::data
