// SPDX-License-Identifier: Apache-2.0
// A run with everything that a checkpoint must bring back: model with dropout and a buffer, AdamW, a schedule, a
// shuffled loader in the middle of an epoch, random state, the step.
#pragma once

#include <loom/nn/batch_norm.h>
#include <loom/nn/dropout.h>
#include <loom/nn/optim/decay.h>

#include "fabric_worlds.h"

namespace fabric_test {

struct Dropping {
  nn::Linear first{6, 12};
  nn::BatchNorm1d norm{12};
  nn::Dropout drop{0.3};
  nn::Linear second{12, 3};
  Tensor operator()(const Tensor& x) const { return second(drop(tanh(norm(first(x))))); }
  LOOM_MEMBERS(first, norm, drop, second)
};

// Everything of a run, made anew from another seed each time: only loading can make two alike.
struct Run {
  Fabric& fabric;
  uint64_t seed = seed_everything(17);
  Dropping net;
  optim::AdamW adamw{nn::parameters(net), {.lr = 1e-2, .weight_decay = 0.1}};
  optim::StepLR schedule{adamw, 3, 0.5};
  std::tuple<FabricModule<Dropping>, FabricOptimizer<optim::AdamW>> placed = fabric.setup(net, adamw);
  using Loader = data::DataLoader<data::TensorDataset<2>>;
  FabricDataLoader<Loader> loader;
  double best = 0.1;
  int64_t count = 0;
  std::string note = "none";

  explicit Run(Fabric& f, uint64_t own_seed = 17, int64_t batch = 4)
      : fabric(f),
        seed(seed_everything(own_seed)),
        loader(f.setup_dataloaders(Loader(samples(40), {.batch_size = batch, .shuffle = true}))) {}

  State state() {
    return {{"model", std::get<0>(placed)},
            {"optimizer", std::get<1>(placed)},
            {"schedule", schedule},
            {"best", best},
            {"count", count},
            {"note", note}};
  }

  // Goes on until the step; returns the losses. at(step) is called in the loop, after each step.
  std::vector<double> train_to(
      int64_t end, const std::function<void(int64_t)>& at = [](int64_t) {}) {
    std::vector<double> losses;
    auto& [model, optimizer] = placed;
    for (;;)
      for (auto [x, y] : loader) {
        optimizer.zero_grad();
        const Tensor loss = mse_loss(model(x), y);
        fabric.backward(loss);
        optimizer.step();
        schedule.step();
        losses.push_back(loss.template item<double>());
        best = std::min(best, losses.back());
        ++count;
        note = str("step ", fabric.global_step());
        at(fabric.global_step());
        if (fabric.global_step() == end) return losses;
      }
  }

  // All that there is, to compare bit for bit; running statistics on rank 0, which gives them to the others in the next
  // forward.
  std::vector<Tensor> everything() {
    std::vector<Tensor> out;
    for (const NamedTensor& p : nn::parameters(net)) out.push_back(p.tensor.detach().clone());
    if (fabric.is_global_zero()) out = values(net);
    for (const auto& part : {values(adamw.state_dict()), values(schedule.state_dict())})
      out.insert(out.end(), part.begin(), part.end());
    const auto position = loader.state();
    out.push_back(
        tensor({position.epoch, position.position, static_cast<int64_t>(position.seed), count, fabric.global_step(),
                static_cast<int64_t>(context().generator.seed), static_cast<int64_t>(context().generator.offset)},
               i64));
    out.push_back(tensor({best}, f64));
    return out;
  }
};

}  // namespace fabric_test
