// How an index pairs the elements of two views, in as few dimensions as there can be.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include <loom/accelerators/view.h>

namespace loom::cpu {

// The elements (.., i, ..) that indices pair, as the shape of the index and the strides of the three views.
enum Role { in_table, in_list, in_index };  // the indexed view, the one in the index's shape, the index
struct Plan {
  Dims shape;
  std::array<Dims, 3> strides;
  int dim;
  int64_t extent;  // of the table along dim
};

// Merges dims that all three views walk in equal steps, so that the innermost loop is long.
inline Plan simplified(Plan p) {
  for (int d = p.shape.size() - 2; d >= 0; --d) {
    if (d == p.dim || d + 1 == p.dim) continue;
    const bool adjoin = std::ranges::all_of(
        p.strides, [&](const Dims& s) { return p.shape[d] == 1 || s[d] == s[d + 1] * p.shape[d + 1]; });
    if (!adjoin) continue;
    p.shape[d + 1] *= p.shape[d];
    p.shape.erase(d);
    for (Dims& s : p.strides) s.erase(d);
    if (p.dim > d) --p.dim;
  }
  return p;
}

inline Plan plan(const View& table, const View& list, const View& index, int dim) {
  if (list.rank() == 0)  // a scalar is a list of one
    return {{1}, {Dims{1}, Dims{1}, Dims{1}}, 0, 1};
  return simplified({list.shape, {table.strides, list.strides, index.strides}, dim, table.shape[dim]});
}

// A list of indices as an index in `like`'s shape.
inline View spread(const View& index, const View& like, int dim) {
  View out = index;
  out.shape = like.shape;
  out.strides = Dims::filled(like.rank(), 0);
  if (like.rank() > 0) out.strides[dim] = index.rank() == 0 ? 1 : index.strides[0];
  return out;
}

}  // namespace loom::cpu
