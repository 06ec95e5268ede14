// Fully connected layers with ReLU between them; peers/models/mlp.py is the twin.   widths=784-128-10
#pragma once

#include <loom/loom.h>
#include <loom/nn/linear.h>
#include <loom/nn/optim/sgd.h>

#include "../row.h"
#include "work.h"

namespace bench {

struct Mlp {
  std::vector<loom::nn::Linear> layers;
  using Optimizer = loom::optim::SGD;
  static constexpr loom::optim::SgdOptions settings{.lr = 0.01};

  explicit Mlp(const Options& options) {
    const std::vector<int64_t> widths = options.numbers("widths", {784, 128, 10});
    for (size_t i = 0; i + 1 < widths.size(); ++i) layers.emplace_back(widths[i], widths[i + 1]);
  }

  loom::Tensor operator()(loom::Tensor x) const {
    for (size_t i = 0; i + 1 < layers.size(); ++i) x = loom::relu(layers[i](x));
    return layers.back()(x);
  }
  LOOM_MEMBERS(layers)

  Samples samples(int64_t count) const {
    return {loom::randn({count, layers.front().weight.size(1)}),
            loom::randint(0, layers.back().weight.size(0), {count})};
  }
  Work work() const {
    Work work;
    for (const auto& layer : layers) work.multiply_adds += static_cast<double>(layer.weight.numel());
    work.first = static_cast<double>(layers.front().weight.numel());
    return work;
  }
};

}  // namespace bench
