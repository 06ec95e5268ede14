// New tensors of random numbers. Element i of a draw depends on the generator's state and on i alone (philox.h).
#include <algorithm>

#include <loom/tensor/context.h>
#include <loom/tensor/create.h>
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

// The order that sorts n random keys of 64 bits: two words of a block each.
Tensor randperm(int64_t n, const TensorOptions& options) {
  check(n >= 0, "randperm: the number of values ", n, " is negative");
  const Philox state = context().generator.draw(n);
  std::vector<std::pair<uint64_t, int64_t>> keys(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; i += 2) {
    const auto words = state.block(static_cast<uint64_t>(i / 2));
    for (int64_t j = i; j < std::min(i + 2, n); ++j) {
      const auto* pair = &words[static_cast<size_t>(j - i) * 2];
      keys[static_cast<size_t>(j)] = {(static_cast<uint64_t>(pair[1]) << 32) | pair[0], j};
    }
  }
  std::sort(keys.begin(), keys.end());
  std::vector<int64_t> order(keys.size());
  std::transform(keys.begin(), keys.end(), order.begin(), [](const auto& key) { return key.second; });
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
