// Which gradients travel together. A pure function of the parameters' sizes, so that all ranks come to the same
// buckets.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <loom/accelerators/device.h>
#include <loom/accelerators/dtype.h>

namespace loom {

struct BucketEntry {
  int64_t bytes = 0;
  DType dtype = DType::f32;
  Device device;
};

struct BucketAssignment {
  std::vector<std::vector<int>> buckets;  // positions in the list of entries
  std::vector<int64_t> limits;            // of each bucket, in bytes
};

// Fills buckets, one open for each dtype and device. A bucket is closed once it has reached its limit, so it may exceed
// it by one tensor; each dtype and device goes through `limits` in turn and stays at the last.
//
// Entries are taken in `order` if there is one, and the buckets stay as they were closed; without an order they are
// sorted by their first entry.
BucketAssignment assign_buckets(std::span<const BucketEntry> entries, std::span<const int64_t> limits,
                                std::span<const int> order = {});

}  // namespace loom
