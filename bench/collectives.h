// What both sides of the rows of collectives have in common.
#pragma once

#include <algorithm>
#include <cstdint>

namespace bench {

struct CollectiveSize {
  const char* name;
  int64_t bytes;  // of the tensor that all ranks have in the end, or had at the start
};
constexpr CollectiveSize collective_sizes[] = {
    {"4 B", 4},          {"256 B", 256},        {"4 KB", 4 << 10},    {"16 KB", 16 << 10},
    {"64 KB", 64 << 10}, {"256 KB", 256 << 10}, {"1 MB", 1 << 20},    {"4 MB", 4 << 20},
    {"16 MB", 16 << 20}, {"100 MB", 100 << 20}, {"256 MB", 256 << 20}};

// The same number on every rank and for the peer: about 1 GB in all.
constexpr int64_t rounds_of(int64_t bytes) { return std::clamp<int64_t>((int64_t{1} << 30) / bytes, 8, 5000); }

}  // namespace bench
