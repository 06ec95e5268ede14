// The image classifier of the examples: two convolutions on 28 x 28; peers/models/cnn.py is the twin.
#pragma once

#include <loom/loom.h>
#include <loom/nn/conv.h>
#include <loom/nn/linear.h>
#include <loom/nn/optim/adam.h>

#include "../row.h"
#include "work.h"

namespace bench {

struct Cnn {
  loom::nn::Conv2d conv1{1, 32, 3, {.padding = 1}}, conv2{32, 64, 3, {.padding = 1}};
  loom::nn::Linear fc1{3136, 128}, fc2{128, 10};
  using Optimizer = loom::optim::AdamW;
  static constexpr loom::optim::AdamWOptions settings{.lr = 1e-3};

  explicit Cnn(const Options&) {}

  loom::Tensor operator()(loom::Tensor x) const {
    x = loom::max_pool2d(loom::relu(conv1(x)), 2);
    x = loom::max_pool2d(loom::relu(conv2(x)), 2);
    return fc2(loom::relu(fc1(loom::flatten(x, 1))));
  }
  LOOM_MEMBERS(conv1, conv2, fc1, fc2)

  Samples samples(int64_t count) const { return {loom::randn({count, 1, 28, 28}), loom::randint(0, 10, {count})}; }
  Work work() const {
    const double first = 28 * 28 * 9 * 32;
    return {.multiply_adds = first + 14 * 14 * 9 * 32 * 64 + 3136 * 128 + 128 * 10, .first = first};
  }
};

}  // namespace bench
