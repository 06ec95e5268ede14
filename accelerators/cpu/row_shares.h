// SPDX-License-Identifier: Apache-2.0
// Rows of a table that an index writes to, shared out among threads: each takes neighbouring rows, whole ones.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include <loom/accelerators/cpu/scratch.h>

namespace loom::cpu {

// n indices, `step` apart, of a table with `extent` rows.
class RowShares {
 public:
  RowShares(const int64_t* index, int64_t n, int64_t step, int64_t extent)
      : index_(index), n_(n), step_(step), extent_(extent), before_(extent) {
    int64_t* const count = before_.data();
    std::fill_n(count, extent, int64_t{0});
    for (int64_t i = 0; i < n; ++i) ++count[index[i * step]];
    for (int64_t r = 0, sum = 0; r < extent; ++r) {
      most_ = std::max(most_, count[r]);
      sum += std::exchange(count[r], sum);
    }
  }
  // The indices of no one row are much of a part's.
  bool even(int64_t parts) const { return most_ * parts * 8 <= n_; }

  // Calls f(position, position two further on or the last) for the indices of a part's rows, in order.
  template <class F>
  void for_each(int64_t part, int64_t parts, const F& f) const {
    const int64_t low = first(part, parts), high = first(part + 1, parts);
    const Scratch<int64_t> mine(number(low, high) + 1);  // what is not its own is written behind, too
    int64_t count = 0;
    for (int64_t i = 0; i < n_; ++i) {  // no branch, which would be guessed wrong
      mine.data()[count] = i;
      const int64_t row = index_[i * step_];
      count += row >= low && row < high ? 1 : 0;
    }
    for (int64_t i = 0; i < count; ++i) f(mine.data()[i], mine.data()[std::min(i + 2, count - 1)]);
  }

 private:
  // The first row of a part: about as many indices lie before it in each.
  int64_t first(int64_t part, int64_t parts) const {
    const int64_t* const before = before_.data();
    return part == parts ? extent_ : std::lower_bound(before, before + extent_, n_ * part / parts) - before;
  }

  // Indices of the rows [low, high).
  int64_t number(int64_t low, int64_t high) const {
    const auto before = [&](int64_t row) { return row == extent_ ? n_ : before_.data()[row]; };
    return before(high) - before(low);
  }

  const int64_t* index_;
  int64_t n_, step_, extent_, most_ = 0;
  Scratch<int64_t> before_;  // how many indices are of rows above this one
};

}  // namespace loom::cpu
