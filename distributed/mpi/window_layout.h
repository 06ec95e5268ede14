// Where things lie in each rank's part of a window's control segment: the step, two posts with a slot behind each, a
// ring of inboxes, a ring of outboxes.
#pragma once

#include <cstddef>

namespace loom::mpi::layout {

constexpr size_t post = 64;
constexpr size_t posts = 128;      // the step has two cache lines for itself: processors fetch them in pairs
constexpr size_t slot = 16 << 10;  // what a post can carry along
constexpr size_t box = 256 << 10;  // a staged piece: what all ranks handle at a time stays in their second-level caches
// Boxes of a ring. It is larger than such a cache: a line that others still hold there is written several times slower.
// So a rank's part has 4 MiB, which are touched where memory that is not shared is reduced.
constexpr size_t boxes = 8;
constexpr size_t inboxes = (posts + 2 * (post + slot) + 4095) / 4096 * 4096;
constexpr size_t outboxes = inboxes + boxes * box;
constexpr size_t bytes = outboxes + boxes * box;

}  // namespace loom::mpi::layout
