// The order in which a data set is visited. A sampler is a pure function of the epoch: it holds no position and no
// random state, so that resuming is skipping, and every rank, worker and restart finds the same order.
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <loom/data/shard.h>

namespace loom::data {

// A shared, immutable object behind an interface; made from a value (`.sampler = RandomSampler(n)`) or a shared_ptr.
template <class Interface>
class Shared {
 public:
  Shared() = default;
  template <std::derived_from<Interface> T>
  Shared(T value) : object_(std::make_shared<const T>(std::move(value))) {}  // NOLINT: a sampler where one is expected
  template <std::derived_from<Interface> T>
  Shared(std::shared_ptr<T> object) : object_(std::move(object)) {}  // NOLINT
  explicit operator bool() const { return object_ != nullptr; }
  const Interface* operator->() const { return object_.get(); }
  const Interface& operator*() const { return *object_; }

 private:
  std::shared_ptr<const Interface> object_;
};

// Overridden by users: total() and order().
class Sampler {
 public:
  virtual ~Sampler() = default;
  // Indices of one epoch, of all ranks together.
  virtual int64_t total() const = 0;
  virtual std::vector<int64_t> order(int64_t epoch) const = 0;
  virtual Shard shard() const { return {}; }

  // Indices of one epoch on this rank.
  int64_t size() const { return shard().count(total()); }
  // Those left after the ranks together have consumed `consumed`.
  std::vector<int64_t> indices(int64_t epoch, int64_t consumed = 0) const { return shard().of(order(epoch), consumed); }
};

class SequentialSampler : public Sampler {
 public:
  explicit SequentialSampler(int64_t size) : size_(size) {}
  int64_t total() const override { return size_; }
  std::vector<int64_t> order(int64_t epoch) const override;

 private:
  int64_t size_;
};

struct RandomSamplerOptions {
  bool replacement = false;
  std::optional<int64_t> num_samples;  // of one epoch; none: the data set's size
  std::optional<uint64_t> seed;        // none: the rank's seed (manual_seed) at construction
};

// Epoch e is drawn from (seed + e) alone: the rank's generator is neither read nor moved on.
class RandomSampler : public Sampler {
 public:
  explicit RandomSampler(int64_t size, const RandomSamplerOptions& options = {});
  int64_t total() const override { return num_samples_; }
  std::vector<int64_t> order(int64_t epoch) const override;

 private:
  int64_t size_, num_samples_;
  uint64_t seed_;
  bool replacement_;
};

// Index i with a probability in proportion to weights[i].
class WeightedRandomSampler : public Sampler {
 public:
  WeightedRandomSampler(std::vector<double> weights, int64_t num_samples, bool replacement = true,
                        std::optional<uint64_t> seed = {});
  int64_t total() const override { return num_samples_; }
  std::vector<int64_t> order(int64_t epoch) const override;

 private:
  std::vector<double> weights_;
  int64_t num_samples_;
  bool replacement_;
  uint64_t seed_;
};

struct DistributedSamplerOptions {
  int64_t num_replicas = 1, rank = 0;
  bool shuffle = true;
  uint64_t seed = 0;
  bool drop_last = false, exact = false;  // see Shard
};

// This rank's share of a data set, or of any other sampler's order.
class DistributedSampler : public Sampler {
 public:
  explicit DistributedSampler(int64_t size, const DistributedSamplerOptions& options);
  DistributedSampler(Shared<Sampler> inner, const Shard& shard);
  int64_t total() const override { return inner_->total(); }
  std::vector<int64_t> order(int64_t epoch) const override { return inner_->order(epoch); }
  Shard shard() const override { return shard_; }

 private:
  Shared<Sampler> inner_;
  Shard shard_;
};

// Groups a sampler's indices. Derive from it, and override total() and batches(), to choose the batches yourself.
class BatchSampler {
 public:
  BatchSampler(Shared<Sampler> sampler, int64_t batch_size, bool drop_last = false);
  virtual ~BatchSampler() = default;
  // Batches of one epoch, of all ranks together.
  virtual int64_t total() const;
  virtual std::vector<std::vector<int64_t>> batches(int64_t epoch) const;
  // True when the batches are this rank's alone, because the sampler within is a DistributedSampler.
  virtual bool distributed() const { return sampler_ && !sampler_->shard().whole(); }

 protected:
  BatchSampler() = default;

 private:
  Shared<Sampler> sampler_;
  int64_t batch_size_ = 1;
  bool drop_last_ = false;
};

// The numbers 0 to n - 1 in an order that depends on the seed alone.
std::vector<int64_t> permutation(int64_t n, uint64_t seed);

}  // namespace loom::data
