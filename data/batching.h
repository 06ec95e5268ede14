// Which samples make which batch of which epoch: everything about a DataLoader that does not depend on the type of its
// samples.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <loom/data/sampler.h>

namespace loom::data {

struct DataLoaderOptions {
  int64_t batch_size = 1;
  bool shuffle = false;
  Shared<Sampler> sampler = {};             // instead of shuffle
  Shared<BatchSampler> batch_sampler = {};  // instead of batch_size, shuffle, sampler and drop_last
  bool drop_last = false;                   // the last batch, when it is not full
  int num_workers = 0;                      // threads that prepare batches; 0: the caller itself
  int prefetch_factor = 2;                  // batches that each worker may be ahead
  std::optional<uint64_t> seed = {};  // of shuffle and of the samples' random draws; none: the rank's (manual_seed)
};

// Where a loader stands. Position counts what all ranks together have consumed of the epoch, in samples (with a batch
// sampler: in batches), so that a run may go on with other ranks, workers or batch size. Prefetched is not consumed.
struct LoaderState {
  int64_t epoch = 0, position = 0;
  uint64_t seed = 0;
  bool operator==(const LoaderState&) const = default;
};

// The batches that are left of an epoch, on this rank.
class BatchPlan {
 public:
  int64_t size() const { return static_cast<int64_t>(begins_.size()) - 1; }
  std::span<const int64_t> batch(int64_t i) const;
  // A number of a sample that no other of the run has, whatever the ranks and the batch size.
  uint64_t ticket(int64_t batch, int64_t sample) const;
  // The loader's position when batches [0, i] are consumed.
  int64_t position_after(int64_t i) const;

 private:
  friend class Batching;
  std::vector<int64_t> indices_, begins_{0};
  Shard shard_;
  int64_t consumed_ = 0, total_ = 0, batch_size_ = 0;  // batch_size 0: a batch sampler's
};

class Batching {
 public:
  Batching(int64_t dataset_size, const DataLoaderOptions& options);

  int64_t size() const;  // batches of a whole epoch on this rank; exact: the same on all, the last may be empty
  uint64_t seed() const { return seed_; }
  void reseed(uint64_t seed) { seed_ = seed; }
  BatchPlan plan(int64_t epoch, int64_t position) const;
  int64_t total() const;  // of one epoch, of all ranks together: what a position counts
  // What the positions of an epoch stand for: "40 samples, shuffled". The same whatever the ranks and the batch size.
  std::string describe() const;
  // Throws Error unless a loader over these batches can stand there.
  void check_state(const LoaderState& state) const;
  // The same for one rank of many; shuffle stays, other samplers are wrapped, batch samplers are dealt out by batches.
  // A DistributedSampler given by the user is left as it is.
  Batching distributed(const Shard& shard, std::optional<uint64_t> seed) const;

 private:
  Shared<Sampler> sampler() const;
  int64_t batches_of(int64_t samples) const;
  void fill_from_sampler(BatchPlan& plan, int64_t epoch) const;
  void fill_from_batch_sampler(BatchPlan& plan, int64_t epoch) const;
  void check_index(int64_t index) const;

  int64_t dataset_size_;
  DataLoaderOptions options_;
  uint64_t seed_;
  Shard shard_;
};

}  // namespace loom::data
