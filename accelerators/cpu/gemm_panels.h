// SPDX-License-Identifier: Apache-2.0
// b as tiles read it: panels of as many columns as a tile has.
#pragma once

#include <algorithm>
#include <cstdint>

#include <loom/accelerators/cpu/gemm_args.h>
#include <loom/accelerators/cpu/gemm_pack.h>
#include <loom/accelerators/threads.h>

namespace loom::cpu {

// A tile's operand, packed or where it lies.
template <class E>
struct Part {
  const E* data;
  int64_t step, row;
};

// Columns of b, and k elements of each. Groups are those of ProductArgs; `data` is column 0 of them all.
template <class S>
struct ColumnsOfB {
  MatrixRef<const S> b;
  int64_t first, columns, k, steps, group_columns, group_stride;
};

// How panels get packed: by all threads before tiles are computed, or by the only one, each when its first tile is
// next, while it is asked for ahead; then all are kept, or where all rows meet a panel at once the last one.
enum class Packing { before, one_by_one, last_kept };

// An operand of no more bytes stays near anyway, and is packed as a whole.
inline constexpr int64_t few_bytes = 128 << 10;
inline constexpr int64_t least_asked = 128;  // tiles of fewer steps are too short to ask for what comes next

template <class E, class S>
class Panels {
 public:
  static constexpr int64_t width = int64_t{tile_vectors} * lanes<SumOf<E>>;

  // in_place: panels are read where they lie, but columns that do not fill one: tiles read whole vectors.
  Panels(const ColumnsOfB<S>& from, bool in_place, Packing packing)
      : from_(from),
        count_(ceil_div(from.columns, width)),
        first_packed_(in_place ? from.columns / width : 0),
        ready_(first_packed_),
        kept_(packing == Packing::last_kept ? std::min<int64_t>(count_ - first_packed_, 1) : count_ - first_packed_),
        packed_(memory_.get(kept_ * width * from.steps)) {
    if (packing != Packing::before) return;
    parallel_for(count_ - first_packed_, grain_of(width * from.k / 4),
                 [&](int64_t begin, int64_t end) { pack_panels(first_packed_ + begin, first_packed_ + end); });
    ready_ = count_;
  }

  int64_t count() const { return count_; }

  // One by one: q grows by 1 from 0, and may then be any if all are kept.
  Part<E> get(int64_t q) {
    if (q < first_packed_)
      return {reinterpret_cast<const E*>(from_.b.data + place(from_.first + q * width)), from_.b.row_stride, 0};
    if (q >= ready_) {
      pack_panels(q, q + 1);
      ready_ = q + 1;
    }
    return {packed_of(q), width, 0};
  }

  // What the first tile of panel q will read, asked for with `slots` rows of tiles, of which `done` are over.
  Ahead ahead(int64_t q, int64_t slots, int64_t done) {
    if (q >= count_ || count_ * panel_bytes() <= few_bytes || from_.steps < least_asked) return {};
    if (q >= ready_) return ahead_of(lines(q), std::min(width, from_.columns - q * width), from_.k, slots, done);
    const Part<E> part = get(q);
    if (part.step != width) return {};  // its lines are apart: not worth it
    return ahead_of(Lines<E>{part.data, 0, 1}, 1, width * from_.steps, slots, done);
  }

 private:
  // Of a column whose neighbours in a row are neighbours in memory.
  int64_t place(int64_t j) const {
    if (from_.group_columns == 0) return j;
    return j / from_.group_columns * from_.group_stride + j % from_.group_columns;
  }
  Lines<S> lines(int64_t q) const {
    const MatrixRef<const S>& b = from_.b;
    return {b.data + place(from_.first + q * width) * b.column_stride, b.column_stride, b.row_stride};
  }
  int64_t panel_bytes() const { return width * from_.steps * static_cast<int64_t>(sizeof(E)); }
  E* packed_of(int64_t q) const { return packed_ + (kept_ == 1 ? 0 : q - first_packed_) * width * from_.steps; }
  void pack_panels(int64_t begin, int64_t end) const {
    pack(packed_of(begin), width, width * from_.steps, lines(begin),
         std::min(end * width, from_.columns) - begin * width, from_.k);
  }

  ColumnsOfB<S> from_;
  int64_t count_, first_packed_, ready_, kept_;
  Workspace<E> memory_;
  E* packed_;
};

}  // namespace loom::cpu
