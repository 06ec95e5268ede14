// SPDX-License-Identifier: Apache-2.0
// What the tests of Fabric's loss scaling train.
#pragma once

#include <limits>
#include <memory>
#include <vector>

#include <loom/nn/optim/grad_scaler.h>

#include "fabric_worlds.h"

namespace fabric_test {

inline constexpr double infinite = std::numeric_limits<double>::infinity();

inline FabricOptions scaled(Communicator& ranks, const optim::GradScalerOptions& scaling) {
  FabricOptions options = over(ranks);
  options.plugins.precision = std::make_shared<MixedPrecision>(f16, scaling);
  return options;
}

inline double scale_of(Fabric& fabric) {
  const double scale = fabric.precision().loss_scale();
  const Tensor all = fabric.all_gather(full({}, scale, f64));
  for (int64_t r = 0; r < fabric.world_size(); ++r) CHECK(all[r].item<double>() == scale);
  return scale;
}

inline Tensor loss_of(const FabricModule<Net>& model) { return mse_loss(model(rows(0, 4, 6)), rows(0, 4, 3)); }

// Two models with an optimizer each.
struct Two {
  Net first = seeded(), second = seeded(4);
  optim::SGD first_sgd{nn::parameters(first), {.lr = 0.01}}, second_sgd{nn::parameters(second), {.lr = 0.01}};
  FabricModule<Net> left, right;
  FabricOptimizer<optim::SGD> a, b;
  explicit Two(Fabric& fabric)
      : left(fabric.setup_module(first)),
        right(fabric.setup_module(second)),
        a(fabric.setup_optimizers(first_sgd)),
        b(fabric.setup_optimizers(second_sgd)) {}
};

}  // namespace fabric_test
