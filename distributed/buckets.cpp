#include <loom/distributed/buckets.h>

#include <algorithm>
#include <numeric>

#include <loom/accelerators/error.h>

namespace loom {

namespace {

// The bucket of one dtype and device that is being filled.
struct OpenBucket {
  DType dtype;
  Device device;
  std::vector<int> entries;
  int64_t bytes = 0;
  size_t limit = 0;  // position in the limits
};

OpenBucket& bucket_for(std::vector<OpenBucket>& open, const BucketEntry& entry) {
  const auto found = std::ranges::find_if(
      open, [&](const OpenBucket& b) { return b.dtype == entry.dtype && b.device == entry.device; });
  if (found != open.end()) return *found;
  return open.emplace_back(OpenBucket{entry.dtype, entry.device, {}, 0, 0});
}

void sort_by_first_entry(BucketAssignment& assignment) {
  std::vector<size_t> by_first(assignment.buckets.size());
  std::iota(by_first.begin(), by_first.end(), size_t{0});
  std::ranges::sort(by_first, {}, [&](size_t b) { return std::ranges::min(assignment.buckets[b]); });
  BucketAssignment sorted;
  for (const size_t b : by_first) {
    sorted.buckets.push_back(std::move(assignment.buckets[b]));
    sorted.limits.push_back(assignment.limits[b]);
  }
  assignment = std::move(sorted);
}

}  // namespace

BucketAssignment assign_buckets(std::span<const BucketEntry> entries, std::span<const int64_t> limits,
                                std::span<const int> order) {
  check(!limits.empty(), "assign_buckets: no limit given");
  check(order.empty() || order.size() == entries.size(), "assign_buckets: an order of ", order.size(), " for ",
        entries.size(), " tensors");
  BucketAssignment out;
  std::vector<OpenBucket> open;
  const auto close = [&](OpenBucket& bucket) {
    out.buckets.push_back(std::move(bucket.entries));
    out.limits.push_back(limits[bucket.limit]);
    bucket.entries.clear();
    bucket.bytes = 0;
    bucket.limit = std::min(bucket.limit + 1, limits.size() - 1);
  };
  for (size_t i = 0; i < entries.size(); ++i) {
    const int position = order.empty() ? static_cast<int>(i) : order[i];
    const BucketEntry& entry = entries[static_cast<size_t>(position)];
    OpenBucket& bucket = bucket_for(open, entry);
    bucket.entries.push_back(position);
    bucket.bytes += entry.bytes;
    if (bucket.bytes >= limits[bucket.limit]) close(bucket);
  }
  for (OpenBucket& bucket : open)
    if (!bucket.entries.empty()) close(bucket);
  if (order.empty()) sort_by_first_entry(out);
  return out;
}

}  // namespace loom
