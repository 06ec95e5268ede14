// Training steps of one model through Fabric.
#pragma once

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <loom/loom.h>
#include <loom/tensor/device_graph.h>
#include <loom/tensor/safetensors.h>

#include "device.h"
#include "machine_limits.h"
#include "memory.h"
#include "models/work.h"
#include "record.h"
#include "row.h"
#include "timing.h"

namespace bench {

constexpr int64_t compared_losses = 3;  // of the first steps

struct Training {
  Times times;                 // of a step
  std::vector<double> losses;  // of the first steps, on this rank
  double memory = 0;           // MiB at most: above the weights and the data, on a GPU in all
  double flops = 0;            // of a step on this rank
  double nominal = 0;          // the same by the formula that is customary for the model
  double units = 0;            // tokens, samples of a step on all ranks
  int64_t samples = 0;         // of a step on all ranks
};

// As many samples as the fixture has (the same on both sides), or noise.
template <class Net>
Samples training_data(Net& net, const Options& options, int64_t step) {
  const std::filesystem::path folder = options.text("fixture");
  if (folder.empty()) {
    loom::manual_seed(1);
    return net.samples(compared_losses * step);
  }
  loom::nn::load_state_dict(net, loom::load_safetensors(folder / "weights.safetensors").tensors);
  const auto data = loom::load_safetensors(folder / "samples.safetensors").tensors;
  loom::check(data.at("inputs").size(0) >= step, "the fixture has ", data.at("inputs").size(0),
              " samples, one step needs ", step);
  return {data.at("inputs"), data.at("targets")};
}

// To be called by every rank of a launched Fabric.
template <class Net>
Training train(loom::Fabric& fabric, const Options& options) {
  const int64_t batch = options.smoke() ? 2 : options.number("batch", 64), world = fabric.world_size();
  Training result{.samples = batch * world};
  Net net(options);
  auto [inputs, targets] = training_data(net, options, result.samples);
  inputs = fabric.to_device(inputs);
  targets = fabric.to_device(targets);
  const int64_t batches = inputs.size(0) / result.samples;
  const Work work = net.work();
  result.flops = work.step_flops() * static_cast<double>(batch);
  result.nominal = work.nominal * static_cast<double>(batch);
  result.units = work.units * static_cast<double>(result.samples);

  typename Net::Optimizer inner(loom::nn::parameters(net), Net::settings);
  settle_memory();
  const double before = allocated_mib();  // without buckets of gradients
  auto [model, optimizer] = fabric.setup(net, inner);
  const loom::Device device = fabric.device();
  settle_memory();
  loom::reset_peak_memory_stats(device);
  int64_t taken = 0;
  loom::Tensor loss;
  const auto train_on = [&](const loom::Tensor& x, const loom::Tensor& y) {
    loss = loom::cross_entropy(model(x), y.flatten());
    fabric.backward(loss);
    optimizer.step();
    optimizer.zero_grad();
  };
  // graph=1: what the device repeats reads the batch where it was recorded.
  const bool as_graph = options.flag("graph");
  const loom::Tensor input = as_graph ? inputs.narrow(0, 0, batch).clone() : loom::Tensor();
  const loom::Tensor target = as_graph ? targets.narrow(0, 0, batch).clone() : loom::Tensor();
  loom::DeviceGraph graph(device, {.warm_up = options.smoke() ? 1 : 3});
  const auto step = [&] {
    const int64_t start = (taken++ % batches * world + fabric.global_rank()) * batch;
    const loom::Tensor x = inputs.narrow(0, start, batch), y = targets.narrow(0, start, batch);
    if (as_graph) {
      input.copy_(x);
      target.copy_(y);
      graph.run([&] { train_on(input, target); });
    } else {
      train_on(x, y);
    }
    if (taken <= compared_losses) result.losses.push_back(loss.template item<double>());
  };
  const int64_t least = as_graph ? 5 : compared_losses;  // as it is, then recorded, then repeated
  const int64_t warmup = options.smoke() ? 1 : std::max(options.number("warmup", 3), least);
  const int64_t steps = options.smoke() ? 1 : options.number("steps", 10);
  if (device.kind == loom::Device::cuda) {
    result.times = time_steps_on(device, warmup, steps, step);
    result.memory = static_cast<double>(loom::memory_stats(device).peak_allocated) / (1 << 20);
  } else {
    result.times = time_steps(warmup, steps, step);
    result.memory = peak_allocated_mib() - before;
    fabric.barrier();  // the others' pages are counted as long as these have them mapped
  }
  return result;
}

}  // namespace bench
