#include <loom/data/sampler.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include <loom/accelerators/philox.h>
#include <loom/tensor/context.h>

namespace loom::data {

namespace {

// Apart from the streams of ranks (0, 1, 2, ...), so that an order shares no bits with the weights drawn from its seed.
constexpr uint64_t order_stream = uint64_t{1} << 63;

class Words {
 public:
  explicit Words(uint64_t seed) : state_{seed, order_stream, 0} {}
  uint64_t next() {
    if (count_++ % 2 == 0) block_ = state_.block(static_cast<uint64_t>(count_ / 2));
    const size_t at = count_ % 2 == 1 ? 0 : 2;
    return (uint64_t{block_[at + 1]} << 32) | block_[at];
  }
  // [0, n), without a modulo: the high word of a product (Lemire 2019); the bias is below n / 2^64.
  int64_t below(int64_t n) {
    return static_cast<int64_t>((static_cast<unsigned __int128>(next()) * static_cast<uint64_t>(n)) >> 64);
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }  // [0, 1)

 private:
  Philox state_;
  std::array<uint32_t, 4> block_{};
  int64_t count_ = 0;
};

uint64_t seed_or_rank_seed(const std::optional<uint64_t>& seed) { return seed ? *seed : context().generator.seed; }

uint64_t epoch_seed(uint64_t seed, int64_t epoch) { return seed + static_cast<uint64_t>(epoch); }

}  // namespace

std::vector<int64_t> permutation(int64_t n, uint64_t seed) {
  std::vector<int64_t> out(static_cast<size_t>(n));
  std::iota(out.begin(), out.end(), int64_t{0});
  Words words(seed);
  for (int64_t i = n - 1; i > 0; --i)
    std::swap(out[static_cast<size_t>(i)], out[static_cast<size_t>(words.below(i + 1))]);
  return out;
}

std::vector<int64_t> SequentialSampler::order(int64_t) const {
  std::vector<int64_t> out(static_cast<size_t>(size_));
  std::iota(out.begin(), out.end(), int64_t{0});
  return out;
}

RandomSampler::RandomSampler(int64_t size, const RandomSamplerOptions& options)
    : size_(size),
      num_samples_(options.num_samples.value_or(size)),
      seed_(seed_or_rank_seed(options.seed)),
      replacement_(options.replacement) {
  check(num_samples_ >= 0, "RandomSampler: num_samples is ", num_samples_, ", expects 0 or more");
  check(size_ > 0 || num_samples_ == 0, "RandomSampler: no sample can be drawn from an empty data set");
}

// Without replacement, more samples than the data set has: further permutations, as PyTorch does.
std::vector<int64_t> RandomSampler::order(int64_t epoch) const {
  const uint64_t seed = epoch_seed(seed_, epoch);
  std::vector<int64_t> out;
  out.reserve(static_cast<size_t>(num_samples_));
  if (replacement_) {
    Words words(seed);
    for (int64_t i = 0; i < num_samples_; ++i) out.push_back(words.below(size_));
    return out;
  }
  for (uint64_t round = 0; static_cast<int64_t>(out.size()) < num_samples_; ++round) {
    const auto next = permutation(size_, seed + (round << 32));
    const auto count = std::min<int64_t>(size_, num_samples_ - static_cast<int64_t>(out.size()));
    out.insert(out.end(), next.begin(), next.begin() + count);
  }
  return out;
}

WeightedRandomSampler::WeightedRandomSampler(std::vector<double> weights, int64_t num_samples, bool replacement,
                                             std::optional<uint64_t> seed)
    : weights_(std::move(weights)),
      num_samples_(num_samples),
      replacement_(replacement),
      seed_(seed_or_rank_seed(seed)) {
  int64_t positive = 0;
  for (size_t i = 0; i < weights_.size(); ++i) {
    check(std::isfinite(weights_[i]) && weights_[i] >= 0, "WeightedRandomSampler: weight ", weights_[i], " at index ",
          i, ", expects a finite number of 0 or more");
    positive += weights_[i] > 0 ? 1 : 0;
  }
  check(num_samples_ > 0, "WeightedRandomSampler: num_samples is ", num_samples_, ", expects at least 1");
  check(positive > 0, "WeightedRandomSampler: all weights are 0");
  check(replacement_ || num_samples_ <= positive, "WeightedRandomSampler: ", num_samples_,
        " samples without replacement from ", positive, " indices of positive weight");
}

std::vector<int64_t> WeightedRandomSampler::order(int64_t epoch) const {
  Words words(epoch_seed(seed_, epoch));
  std::vector<int64_t> out;
  if (replacement_) {
    std::vector<double> sums(weights_.size());
    std::partial_sum(weights_.begin(), weights_.end(), sums.begin());
    out.reserve(static_cast<size_t>(num_samples_));
    const auto last = std::lower_bound(sums.begin(), sums.end(), sums.back());  // of positive weight
    for (int64_t i = 0; i < num_samples_; ++i) {  // upper_bound never stops at a weight of 0
      const auto found = std::upper_bound(sums.begin(), last, words.uniform() * sums.back());
      out.push_back(found - sums.begin());
    }
    return out;
  }
  // The first to arrive of independent exponential clocks of these rates (Efraimidis and Spirakis 2006).
  std::vector<std::pair<double, int64_t>> arrivals;
  for (size_t i = 0; i < weights_.size(); ++i) {
    const double clock = -std::log1p(-words.uniform()) / weights_[i];
    if (weights_[i] > 0) arrivals.emplace_back(clock, static_cast<int64_t>(i));
  }
  std::partial_sort(arrivals.begin(), arrivals.begin() + num_samples_, arrivals.end());
  for (int64_t i = 0; i < num_samples_; ++i) out.push_back(arrivals[static_cast<size_t>(i)].second);
  return out;
}

namespace {
Shared<Sampler> order_of(int64_t size, const DistributedSamplerOptions& options) {
  if (options.shuffle) return RandomSampler(size, {.seed = options.seed});
  return SequentialSampler(size);
}
}  // namespace

DistributedSampler::DistributedSampler(int64_t size, const DistributedSamplerOptions& options)
    : DistributedSampler(order_of(size, options),
                         {options.num_replicas, options.rank, options.drop_last, options.exact}) {}

DistributedSampler::DistributedSampler(Shared<Sampler> inner, const Shard& shard)
    : inner_(std::move(inner)), shard_(shard) {
  shard_.validate("DistributedSampler");
  check(inner_->shard().whole(), "DistributedSampler: the inner sampler is distributed already");
}

BatchSampler::BatchSampler(Shared<Sampler> sampler, int64_t batch_size, bool drop_last)
    : sampler_(std::move(sampler)), batch_size_(batch_size), drop_last_(drop_last) {
  check(batch_size >= 1, "BatchSampler: batch_size is ", batch_size, ", expects at least 1");
}

int64_t BatchSampler::total() const {
  const int64_t samples = sampler_->size();
  return drop_last_ ? samples / batch_size_ : (samples + batch_size_ - 1) / batch_size_;
}

std::vector<std::vector<int64_t>> BatchSampler::batches(int64_t epoch) const {
  const auto indices = sampler_->indices(epoch);
  std::vector<std::vector<int64_t>> out;
  for (int64_t i = 0; i < total(); ++i) {
    const auto begin = indices.begin() + i * batch_size_;
    const auto end = indices.end() - begin < batch_size_ ? indices.end() : begin + batch_size_;
    out.emplace_back(begin, end);
  }
  return out;
}

}  // namespace loom::data
