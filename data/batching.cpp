#include <loom/data/batching.h>

#include <algorithm>

#include <loom/tensor/context.h>

namespace loom::data {

namespace {

void validate(const DataLoaderOptions& o) {
  check(o.batch_size >= 1, "DataLoader: batch_size is ", o.batch_size, ", expects at least 1");
  check(o.num_workers >= 0, "DataLoader: num_workers is ", o.num_workers, ", expects 0 or more");
  check(o.prefetch_factor >= 1, "DataLoader: prefetch_factor is ", o.prefetch_factor, ", expects at least 1");
  check(!(o.sampler && o.shuffle), "DataLoader: sampler and shuffle exclude each other");
  check(!o.batch_sampler || (o.batch_size == 1 && !o.shuffle && !o.sampler && !o.drop_last),
        "DataLoader: batch_sampler excludes batch_size, shuffle, sampler and drop_last");
}

}  // namespace

std::span<const int64_t> BatchPlan::batch(int64_t i) const {
  const auto at = static_cast<size_t>(i);
  return std::span(indices_).subspan(static_cast<size_t>(begins_[at]),
                                     static_cast<size_t>(begins_[at + 1] - begins_[at]));
}

uint64_t BatchPlan::ticket(int64_t batch, int64_t sample) const {
  const bool by_batch = batch_size_ == 0;
  const int64_t local = by_batch ? batch : batch * batch_size_ + sample;
  const auto global = static_cast<uint64_t>(consumed_ + local * shard_.num_replicas + shard_.rank);
  return by_batch ? (global << 24) + static_cast<uint64_t>(sample) : global;
}

int64_t BatchPlan::position_after(int64_t i) const {
  const int64_t each = batch_size_ == 0 ? 1 : batch_size_;
  return std::min(total_, consumed_ + (i + 1) * each * shard_.num_replicas);
}

Batching::Batching(int64_t dataset_size, const DataLoaderOptions& options)
    : dataset_size_(dataset_size), options_(options), seed_(options.seed.value_or(context().generator.seed)) {
  validate(options_);
  if (options_.sampler) shard_ = options_.sampler->shard();
}

Shared<Sampler> Batching::sampler() const {
  if (options_.sampler) return options_.sampler;
  if (options_.shuffle) return RandomSampler(dataset_size_, {.seed = seed_});
  return SequentialSampler(dataset_size_);
}

int64_t Batching::batches_of(int64_t samples) const {
  return options_.drop_last ? samples / options_.batch_size : (samples + options_.batch_size - 1) / options_.batch_size;
}

int64_t Batching::total() const {
  return options_.batch_sampler ? options_.batch_sampler->total() : sampler()->total();
}

std::string Batching::describe() const {
  if (options_.batch_sampler) return str(total(), " batches of ", dataset_size_, " samples, by a batch sampler");
  if (options_.sampler) return str(total(), " of ", dataset_size_, " samples, by a sampler");
  return str(dataset_size_, " samples, ", options_.shuffle ? "shuffled" : "in order");
}

void Batching::check_state(const LoaderState& state) const {
  check(state.epoch >= 0 && state.position >= 0 && state.position <= total(), "DataLoader: load_state: position ",
        state.position, " of epoch ", state.epoch, ", expects one of 0 to ", total(), " of an epoch from 0 on (",
        describe(), ")");
}

int64_t Batching::size() const {
  if (options_.batch_sampler) return shard_.largest(options_.batch_sampler->total());
  return batches_of(shard_.largest(sampler()->total()));
}

BatchPlan Batching::plan(int64_t epoch, int64_t position) const {
  BatchPlan plan;
  plan.shard_ = shard_;
  plan.consumed_ = position;
  if (options_.batch_sampler)
    fill_from_batch_sampler(plan, epoch);
  else
    fill_from_sampler(plan, epoch);
  for (const int64_t index : plan.indices_) check_index(index);
  return plan;
}

void Batching::fill_from_sampler(BatchPlan& plan, int64_t epoch) const {
  const auto order = sampler()->order(epoch);
  plan.total_ = static_cast<int64_t>(order.size());
  plan.batch_size_ = options_.batch_size;
  plan.indices_ = shard_.of(order, plan.consumed_);
  // In exact mode a rank may have a batch less than others: an empty one keeps their collectives in step.
  const int64_t left = std::max<int64_t>(0, plan.total_ - plan.consumed_);
  const auto mine = static_cast<int64_t>(plan.indices_.size());
  for (int64_t i = 1; i <= batches_of(shard_.largest(left)); ++i)
    plan.begins_.push_back(std::min(mine, i * options_.batch_size));
}

void Batching::fill_from_batch_sampler(BatchPlan& plan, int64_t epoch) const {
  const auto batches = options_.batch_sampler->batches(epoch);
  plan.total_ = static_cast<int64_t>(batches.size());
  const int64_t left = std::max<int64_t>(0, plan.total_ - plan.consumed_);
  const auto mine = shard_.of(batches, plan.consumed_);
  for (int64_t i = 0; i < shard_.largest(left); ++i) {
    if (i < static_cast<int64_t>(mine.size())) {
      const auto& batch = mine[static_cast<size_t>(i)];
      plan.indices_.insert(plan.indices_.end(), batch.begin(), batch.end());
    }
    plan.begins_.push_back(static_cast<int64_t>(plan.indices_.size()));
  }
}

void Batching::check_index(int64_t index) const {
  check(index >= 0 && index < dataset_size_, "DataLoader: the sampler gave index ", index, " for a data set of ",
        dataset_size_, " samples");
}

Batching Batching::distributed(const Shard& shard, std::optional<uint64_t> seed) const {
  shard.validate("DataLoader");
  Batching out = *this;
  if (!shard_.whole() || (options_.batch_sampler && options_.batch_sampler->distributed())) return out;
  out.shard_ = shard;
  if (seed) out.seed_ = *seed;
  return out;
}

}  // namespace loom::data
