// The command line of the GPT.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <numbers>
#include <optional>
#include <string>
#include <vector>

#include <loom/loom.h>

#include "flag_checks.h"
#include "gpt.h"

namespace loom {

// The sizes of GPT-2, with the learning rates of Brown et al. 2020, and one that a laptop trains in minutes.
struct GptSize {
  const char* name;
  int64_t n_layer, n_head, n_embd, block_size;
  double lr;
};
inline constexpr std::array<GptSize, 5> gpt_sizes{{{"tiny", 4, 4, 128, 128, 1e-3},
                                                   {"gpt2", 12, 12, 768, 1024, 6e-4},
                                                   {"gpt2-medium", 24, 16, 1024, 1024, 3e-4},
                                                   {"gpt2-large", 36, 20, 1280, 1024, 2.5e-4},
                                                   {"gpt2-xl", 48, 25, 1600, 1024, 2e-4}}};

struct GptFlags {
  std::string data, vocab, init, size = "tiny";
  std::optional<int64_t> n_layer, n_head, n_embd, block_size;  // instead of the size's
  double dropout = 0;
  bool checkpoint_activations = false;

  int64_t steps = 5000, max_steps = 0, batch_size = 16, accumulate = 1, warmup = 100;
  std::optional<double> lr, min_lr;
  double weight_decay = 0.1, clip = 1;
  uint64_t seed = 42;

  int64_t eval_every = 250, eval_batches = 20, save_every = 0;
  std::string checkpoints, resume, log, save_weights;

  int64_t sample = 0, top_k = 0;
  double temperature = 1;
  std::string prompt;

  std::string devices = "auto", accelerator = "auto", strategy = "auto", precision = "32-true";

  const GptSize& chosen() const {
    return *std::ranges::find_if(gpt_sizes, [this](const GptSize& s) { return s.name == size; });
  }
  GptConfig config() const {
    GptConfig c{.block_size = block_size.value_or(chosen().block_size),
                .n_layer = n_layer.value_or(chosen().n_layer),
                .n_head = n_head.value_or(chosen().n_head),
                .n_embd = n_embd.value_or(chosen().n_embd),
                .dropout = dropout,
                .checkpoint_activations = checkpoint_activations};
    check(c.n_embd % c.n_head == 0, "--n-embd ", c.n_embd, " is not a multiple of --n-head ", c.n_head);
    check(!min_lr || *min_lr <= peak_lr(), "--min-lr ", min_lr.value_or(0), " is more than the peak rate ", peak_lr());
    return c;
  }
  std::filesystem::path checkpoint() const { return std::filesystem::path(checkpoints) / "last.safetensors"; }
  double peak_lr() const { return lr.value_or(chosen().lr); }
  // Of the peak rate, at a step: up to 1 in a line, down along a cosine.
  double schedule(int64_t step) const {
    if (step < warmup) return static_cast<double>(step + 1) / static_cast<double>(warmup + 1);
    const double least = min_lr && peak_lr() > 0 ? *min_lr / peak_lr() : 0.1;
    const double way = static_cast<double>(step - warmup) / static_cast<double>(std::max<int64_t>(1, steps - warmup));
    return least + (1 - least) * (1 + std::cos(std::numbers::pi * std::min(1.0, way))) / 2;
  }
  void add_to(CLI::App& app);
};

inline void GptFlags::add_to(CLI::App& app) {
  app.option_defaults()->always_capture_default()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  const auto most = int64_t{1'000'000'000};
  const auto count = [&](const char* name, auto& variable, const char* text, int64_t least) {
    return app.add_option(name, variable, text)->check(CLI::Range(least, most));
  };
  std::vector<std::string> names(gpt_sizes.size());
  std::ranges::transform(gpt_sizes, names.begin(), &GptSize::name);

  app.add_option("--data", data, "text file, plain or gzipped, in UTF-8 (without: Debian's bible-kjv)");
  app.add_option("--vocab", vocab, ".tiktoken file of GPT-2's tokens (without: the text's characters)");
  app.add_option("--size", size)->check(CLI::IsMember(names));
  count("--n-layer", n_layer, "instead of the size's", 1);
  count("--n-head", n_head, "instead of the size's", 1);
  count("--n-embd", n_embd, "instead of the size's", 1);
  count("--block-size", block_size, "tokens that a prediction can look back on, instead of the size's", 1);
  app.add_option("--dropout", dropout)->check(number(0, 1));
  app.add_flag("--checkpoint-activations", checkpoint_activations, "less memory, a third more time");
  auto* weights = app.add_option("--init", init, "weights to begin with: Hugging Face's model.safetensors of a GPT-2");

  count("--steps", steps, "of the optimizer, in all", 0);
  count("--max-steps", max_steps, "stop after so many in all, resumed ones too (0: no limit)", 0);
  count("--batch-size", batch_size, "blocks a step, rank and accumulation", 1);
  count("--accumulate", accumulate, "batches whose gradients make a step", 1);
  app.add_option("--lr", lr, "peak learning rate of AdamW, instead of the size's")->check(number());
  count("--warmup", warmup, "steps up to it", 0);
  app.add_option("--min-lr", min_lr, "rate of the last step (without: a tenth of the peak)")->check(number());
  app.add_option("--weight-decay", weight_decay, "of matrices; biases and norms have none")->check(number());
  app.add_option("--clip", clip, "largest norm of the gradients (0: none)")->check(number());
  app.add_option("--seed", seed)->check(seed_number());

  count("--eval-every", eval_every, "steps between validations (0: only after the last)", 0);
  count("--eval-batches", eval_batches,
        "as many blocks validate as so many steps train, spread over the validation text (0: all)", 0);
  auto* folder = app.add_option("--checkpoints", checkpoints, "folder to save last.safetensors in, at validations");
  count("--save-every", save_every, "save after so many steps too (0: only at validations)", 0)->needs(folder);
  app.add_option("--resume", resume, "checkpoint to go on from")->excludes(weights);
  app.add_option("--save-weights", save_weights, "file for the weights at the end, as Hugging Face's are");
  app.add_option("--log", log, "folder for metrics.csv: losses (means over ranks), rates, norms of gradients");

  count("--sample", sample, "tokens to write at the end", 0);
  app.add_option("--prompt", prompt, "text that they follow");
  app.add_option("--temperature", temperature, "0: always the most likely token")->check(number());
  count("--top-k", top_k, "draw among so many likely tokens (0: all)", 0);

  app.add_option("--devices", devices, "ranks on this machine: auto or a number");
  app.add_option("--accelerator", accelerator);
  app.add_option("--strategy", strategy);
  app.add_option("--precision", precision);
}

}  // namespace loom
