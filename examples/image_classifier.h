// What the two image classifiers share: the model, the data, the flags.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>

#include <loom/fabric/csv_logger.h>
#include <loom/fabric/progress.h>
#include <loom/loom.h>
#include <loom/nn/conv.h>
#include <loom/nn/linear.h>
#include <loom/nn/optim/adam.h>
#include <loom/nn/optim/decay.h>

#include "flag_checks.h"

namespace loom {

// 28 x 28 grey images to the scores of 10 classes; 421,642 parameters.
struct Classifier {
  nn::Conv2d conv1{1, 32, 3, {.padding = 1}}, conv2{32, 64, 3, {.padding = 1}};
  nn::Linear fc1{3136, 128}, fc2{128, 10};

  Tensor operator()(Tensor x) const {
    x = max_pool2d(relu(conv1(x)), 2);
    x = max_pool2d(relu(conv2(x)), 2);
    return fc2(relu(fc1(flatten(x, 1))));
  }
  LOOM_MEMBERS(conv1, conv2, fc1, fc2)
};

struct Flags {
  std::string data;  // folder of the data set; empty: where the Debian package puts it
  int epochs = 3;
  int64_t batch_size = 64;
  double lr = 1e-3, lr_end = 1;
  uint64_t seed = 42;

  // Parallel runs.
  std::string devices = "auto", accelerator = "auto", strategy = "auto", precision = "32-true";
  std::string checkpoints, resume, log;
  int64_t save_every = 0, max_steps = 0;
  static constexpr int most = 1'000'000'000;  // of anything that is counted

  void add_common(CLI::App& app) {
    app.option_defaults()->always_capture_default()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    app.add_option("--data", data, "folder with the four Fashion-MNIST files");
    app.add_option("--epochs", epochs)->check(CLI::Range(1, most));
    app.add_option("--batch-size", batch_size, "samples a step and rank")->check(CLI::Range(1, most));
    app.add_option("--lr", lr, "learning rate of AdamW")->check(number());
    app.add_option("--lr-end", lr_end, "what it falls to by the end, in a line, as a share of it (1: it stays)")
        ->check(number());
    app.add_option("--seed", seed)->check(seed_number());
  }
  void add_fabric(CLI::App& app) {
    app.add_option("--devices", devices, "ranks on this machine: auto or a number");
    app.add_option("--accelerator", accelerator);
    app.add_option("--strategy", strategy);
    app.add_option("--precision", precision);
    auto* folder = app.add_option("--checkpoints", checkpoints, "folder to save last.safetensors in, after each epoch");
    app.add_option("--save-every", save_every, "save after so many steps too (0: only after epochs)")
        ->check(CLI::Range(0, most))
        ->needs(folder);
    app.add_option("--resume", resume, "checkpoint to go on from");
    app.add_option("--max-steps", max_steps, "stop after so many steps in all, resumed ones too (0: no limit)")
        ->check(CLI::Range(0, most));
    app.add_option("--log", log, "folder for metrics.csv: the loss of every step, the mean over ranks");
  }
  std::filesystem::path last() const { return std::filesystem::path(checkpoints) / "last.safetensors"; }
  FabricOptions fabric() const {
    FabricOptions options{.accelerator = accelerator, .strategy = strategy, .devices = devices, .precision = precision};
    if (!log.empty()) options.loggers.push_back(std::make_shared<CsvLogger>(CsvLoggerOptions{.root = log}));
    return options;
  }
};

inline auto training_images(const Flags& flags) {
  return data::DataLoader(data::FashionMnist("train", {.root = flags.data}),
                          {.batch_size = flags.batch_size, .shuffle = true, .seed = flags.seed});
}
inline auto test_images(const Flags& flags) {
  return data::DataLoader(data::FashionMnist("test", {.root = flags.data}), {.batch_size = 500});
}

// The share of --lr for each step of all epochs.
template <class Loader>
auto falling_rate(const Flags& flags, const Loader& loader) {
  const auto steps = static_cast<double>(flags.epochs * loader.size());
  return [end = flags.lr_end, steps](int64_t step) {
    return end + (1 - end) * std::max(0.0, 1 - static_cast<double>(step) / steps);
  };
}

// How far `loader` is in its epoch; `batch`: samples a step, over all ranks.
template <class Loader>
ProgressOptions progress_of(const Loader& loader, int64_t batch, bool enabled = true) {
  return {.title = str("epoch ", loader.state().epoch + 1),
          .total = loader.size(),
          .first = loader.state().position / batch,
          .samples_per_step = batch,
          .enabled = enabled};
}

// How many images the model puts into their class, and how many there are; on the loader's device.
template <class Model, class Loader>
Tensor score(const Model& model, Loader& loader, Device device = {}) {
  const NoGrad off;
  Tensor counts = zeros({2}, {f64, device});
  for (auto [x, y] : loader) {
    counts[0] += sum(argmax(model(x), 1) == y);
    counts[1] += y.numel();
  }
  return counts;
}
inline double accuracy(const Tensor& counts) { return (counts[0] / counts[1]).item<double>(); }

}  // namespace loom
