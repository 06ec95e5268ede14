// New tensors of random numbers. Element i of a draw depends on the generator's state and on i alone (philox.h).
#include <algorithm>

#include <loom/accelerators/threads.h>
#include <loom/tensor/create.h>
#include <loom/tensor/device_graph.h>
#include <loom/tensor/raw.h>

namespace loom {

Tensor rand(const Dims& shape, const TensorOptions& options) {
  return raw::random(Random::uniform, shape, 0, 1, options);
}
Tensor randn(const Dims& shape, const TensorOptions& options) {
  return raw::random(Random::normal, shape, 0, 1, options);
}
Tensor rand_like(const Tensor& x) { return rand(x.shape(), {x.dtype(), x.device()}); }
Tensor randn_like(const Tensor& x) { return randn(x.shape(), {x.dtype(), x.device()}); }

Tensor randint(int64_t low, int64_t high, const Dims& shape, const TensorOptions& options) {
  TensorOptions chosen = options;
  if (!chosen.dtype) chosen.dtype = DType::i64;
  return raw::random(Random::integers, shape, static_cast<double>(low), static_cast<double>(high), chosen);
}

namespace {

using Key = std::pair<uint64_t, int64_t>;  // drawn number, position

std::vector<Key> drawn_keys(const Philox& state, int64_t n) {
  std::vector<Key> keys(static_cast<size_t>(n));
  parallel_for((n + 1) / 2, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto words = state.block(static_cast<uint64_t>(i));
      for (int64_t j = 2 * i; j < std::min(2 * i + 2, n); ++j) {
        const auto* pair = &words[static_cast<size_t>(j - 2 * i) * 2];
        keys[static_cast<size_t>(j)] = {(static_cast<uint64_t>(pair[1]) << 32) | pair[0], j};
      }
    }
  });
  return keys;
}

}  // namespace

// The order that sorts n random keys of 64 bits, two words of a block each: first dealt into piles by their leading
// bits, then each pile sorted, in cache.
Tensor randperm(int64_t n, const TensorOptions& options) {
  check(n >= 0, "randperm: the number of values ", n, " is negative");
  check_drawn_on_device("randperm", Device());
  const int bits = n < 4096 ? 0 : 11;
  const int64_t piles = int64_t{1} << bits;
  const auto pile_of = [=](const Key& key) { return bits == 0 ? 0 : key.first >> (64 - bits); };
  const std::vector<Key> keys = drawn_keys(context().generator.draw(n), n);
  std::vector<int64_t> start(static_cast<size_t>(piles) + 1);
  for (const Key& key : keys) ++start[pile_of(key) + 1];
  for (size_t i = 1; i < start.size(); ++i) start[i] += start[i - 1];
  std::vector<int64_t> next(start.begin(), start.end() - 1);
  std::vector<Key> dealt(keys.size());
  for (const Key& key : keys) dealt[static_cast<size_t>(next[pile_of(key)]++)] = key;
  std::vector<int64_t> order(keys.size());
  parallel_for(piles, std::max<int64_t>(1, 4096 * piles / std::max<int64_t>(n, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) std::sort(dealt.begin() + start[i], dealt.begin() + start[i + 1]);
    for (int64_t i = start[begin]; i < start[end]; ++i) order[i] = dealt[i].second;
  });
  return from_vector(order, {n}, options);
}

Tensor bernoulli(const Tensor& probability) {
  check(is_floating(probability.dtype()), "bernoulli: expects a floating dtype, got ", probability.dtype());
  if (probability.device().kind == Device::cpu && probability.numel() > 0) {  // elsewhere a look at the values waits
    const double low = raw::reduce(Reduce::min, probability, {}, false).item<double>();
    const double high = raw::reduce(Reduce::max, probability, {}, false).item<double>();
    check(low >= 0 && high <= 1, "bernoulli: probabilities lie in [0, 1], got values from ", low, " to ", high);
  }
  const Tensor drawn = rand_like(probability);
  return raw::cast(raw::binary(Binary::lt, drawn, probability), probability.dtype());
}

}  // namespace loom
