// What the two image classifiers share: the model and the command line.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include <loom/loom.h>
#include <loom/nn/conv.h>
#include <loom/nn/linear.h>

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
  double lr = 1e-3;
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
    app.add_option("--lr", lr, "learning rate of AdamW");
    app.add_option("--seed", seed);
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
    app.add_option("--max-steps", max_steps, "stop after so many steps in all (0: no limit)")
        ->check(CLI::Range(0, most));
    app.add_option("--log", log, "folder for metrics.csv: the loss of every step, the mean over ranks");
  }
};

}  // namespace loom
