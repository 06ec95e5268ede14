// Two LSTM layers over a sequence of vectors, a class from the last state; peers/models/lstm.py is the twin.
// width=256 depth=2 sequence=64
#pragma once

#include <loom/loom.h>
#include <loom/nn/linear.h>
#include <loom/nn/optim/adam.h>
#include <loom/nn/recurrent.h>

#include "../row.h"
#include "work.h"

namespace bench {

struct Lstm {
  static constexpr int64_t features = 64, classes = 10;
  int64_t width, depth, sequence;
  loom::nn::LSTM lstm;
  loom::nn::Linear head;
  using Optimizer = loom::optim::AdamW;
  static constexpr loom::optim::AdamWOptions settings{.lr = 1e-3};

  explicit Lstm(const Options& options)
      : width(options.number("width", 256)),
        depth(options.number("depth", 2)),
        sequence(options.number("sequence", 64)),
        lstm(features, width, {.num_layers = depth, .batch_first = true}),
        head(width, classes) {}

  loom::Tensor operator()(const loom::Tensor& x) const { return head(lstm(x).output.select(1, -1)); }
  LOOM_MEMBERS(lstm, head)

  Samples samples(int64_t count) const {
    return {loom::randn({count, sequence, features}), loom::randint(0, classes, {count})};
  }
  Work work() const {
    const auto w = static_cast<double>(width), steps = static_cast<double>(sequence);
    const double first = steps * 4 * w * features;  // the input's part of the first layer's gates
    const double states = steps * 4 * w * w * static_cast<double>(2 * depth - 1);
    return {.multiply_adds = first + states + w * classes, .first = first};
  }
};

}  // namespace bench
