// Writing: a token at a time, each drawn by the scores that the model gives after those before it.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include <loom/loom.h>

#include "gpt.h"

namespace loom {

struct SampleOptions {
  int64_t count = 0, top_k = 0;  // top_k 0: all
  double temperature = 1;        // 0: the most likely token
  uint64_t seed = 0;
};

// `at` in [0, 1) chooses.
inline int64_t choose(std::vector<double> scores, const SampleOptions& options, double at) {
  check(std::ranges::all_of(scores, [](double s) { return std::isfinite(s); }),
        "cannot write: the model's scores are not finite");
  const auto most = std::max_element(scores.begin(), scores.end());
  if (options.temperature == 0) return most - scores.begin();
  const double highest = *most;
  double least = -std::numeric_limits<double>::infinity();
  if (options.top_k > 0 && options.top_k < std::ssize(scores)) {
    std::vector<double> sorted = scores;
    std::nth_element(sorted.begin(), sorted.begin() + options.top_k - 1, sorted.end(), std::greater<>());
    least = sorted[static_cast<size_t>(options.top_k - 1)];
  }
  for (double& s : scores) s = s < least ? 0 : std::exp((s - highest) / options.temperature);
  std::partial_sum(scores.begin(), scores.end(), scores.begin());
  const double sum = scores.back();
  return std::upper_bound(scores.begin(), scores.end(), std::min(at * sum, std::nextafter(sum, 0.0))) - scores.begin();
}

// `tokens` and options.count more. All ranks call, and write the same, whatever was drawn before.
template <class Model>
std::vector<int64_t> generate(const Model& model, std::vector<int64_t> tokens, const SampleOptions& options) {
  const NoGrad off;
  Context own = context();
  own.generator = Generator{.seed = options.seed};
  const ContextGuard guard(own);
  const int64_t block = model->config.block_size;
  const Device device = model->wte.weight.device();
  for (int64_t i = 0; i < options.count; ++i) {
    const int64_t length = std::min(block, std::ssize(tokens));
    const std::span<const int64_t> seen(tokens.end() - length, tokens.end());
    const Tensor scores = model.call(&Gpt::next, from_span(seen, {1, length}).to(device)).to(Device::cpu).to(f64);
    const double at = rand({1}, {f64, Device::cpu}).template item<double>();
    tokens.push_back(choose(scores.flatten().template to_vector<double>(), options, at));
  }
  return tokens;
}

}  // namespace loom
