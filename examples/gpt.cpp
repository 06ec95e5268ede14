// Trains a GPT on a text with Fabric, on any number of ranks, and has it write.
//   gpt --devices 2 --sample 300                          characters of the King James Bible
//   gpt --data novel.txt --vocab gpt2.tiktoken            any text, in GPT-2's tokens
//   gpt --size gpt2 --init model.safetensors --vocab gpt2.tiktoken --data novel.txt --lr 3e-5      fine-tunes GPT-2
#include "gpt.h"

#include <cmath>
#include <optional>

#include <loom/data/token_blocks.h>
#include <loom/fabric/csv_logger.h>
#include <loom/fabric/progress.h>
#include <loom/nn/optim/adam.h>
#include <loom/nn/optim/decay.h>

#include "gpt_flags.h"
#include "gpt_identity.h"
#include "gpt_sample.h"
#include "gpt_text.h"
#include "gpt_weights.h"
#include "outputs.h"

using namespace loom;

namespace {

// Blocks are drawn with replacement, so the length of an epoch is of no account; ranks and batches divide this one.
constexpr int64_t samples_per_epoch = 1 << 16;

constexpr int most_skipped = 50;  // 65536 halved so often is nothing

// The loader's batches, epoch after epoch.
template <class Loader>
class Endless {
 public:
  explicit Endless(Loader& loader) : loader_(&loader) {}
  auto next() {
    if (at_) ++*at_;
    if (!at_ || *at_ == loader_->end()) at_.emplace(loader_->begin());
    return **at_;
  }

 private:
  Loader* loader_;
  std::optional<decltype(std::declval<Loader&>().begin())> at_;
};

std::vector<optim::Group> decaying_matrices(const Gpt& net, double weight_decay) {
  std::vector<optim::Group> groups{{{}, {{"weight_decay", weight_decay}}}, {{}, {{"weight_decay", 0}}}};
  for (const NamedTensor& p : nn::parameters(net)) groups[p.tensor.dim() >= 2 ? 0 : 1].parameters.push_back(p);
  return groups;
}

// Some of the blocks, evenly spread.
data::Subset<data::TokenBlocks> spread(const data::TokenBlocks& blocks, int64_t wanted) {
  const int64_t count = wanted == 0 ? blocks.size() : std::min(wanted, blocks.size());
  std::vector<int64_t> indices;
  for (int64_t i = 0; i < count; ++i) indices.push_back(i * blocks.size() / count);
  return {blocks, indices};
}

template <class Model>
Tensor loss_of(const Model& model, const Tensor& x, const Tensor& y, Reduction reduction = Reduction::mean) {
  return cross_entropy(model(x).flatten(0, 1), y.flatten(), {.reduction = reduction});
}

// Over all ranks, each token counted once. The loader lives no longer than this, so checkpoints know nothing of it.
template <class Model, class Blocks>
double validation_loss(Fabric& fabric, Model& model, const Blocks& blocks, int64_t batch_size) {
  const NoGrad off;
  nn::eval(model);
  auto loader = fabric.setup_dataloaders(data::DataLoader(blocks, {.batch_size = batch_size}), {.exact = true});
  double sum = 0, count = 0;
  for (auto [x, y] : loader) {
    sum += loss_of(model, x, y, Reduction::sum).template item<double>();
    count += static_cast<double>(y.numel());
  }
  nn::train(model);
  return fabric.all_reduce(sum, "sum") / fabric.all_reduce(count, "sum");
}

// Whatever can be wrong with where the run will write is wrong now rather than then.
void check_outputs(Fabric& fabric, const GptFlags& flags) {
  if (!flags.save_weights.empty() && !flags.checkpoints.empty())
    check(
        std::filesystem::weakly_canonical(flags.save_weights) != std::filesystem::weakly_canonical(flags.checkpoint()),
        "--save-weights: ", flags.save_weights, " is the checkpoint's file");
  if (!flags.checkpoints.empty()) check_checkpoint_writable(fabric, flags.checkpoint());
  if (!flags.save_weights.empty()) check_writable(fabric, "--save-weights", flags.save_weights);
  if (!flags.log.empty()) check_log_writable(fabric, flags.log);
}

// What the model writes after the prompt, or else after the token that texts begin after.
template <class Model>
std::string written(Model& model, const Vocabulary& vocabulary, std::vector<int64_t> prompt, const GptFlags& flags) {
  const bool none = prompt.empty();
  if (none) prompt = {vocabulary.start()};
  nn::eval(model);
  const auto tokens = generate(model, std::move(prompt), {flags.sample, flags.top_k, flags.temperature, flags.seed});
  return vocabulary.decode(std::span(tokens).subspan(none ? 1 : 0));
}

// The gradients of a step, from as many batches as are accumulated; returns this rank's loss.
template <class Model, class Batches>
Tensor accumulate(Fabric& fabric, const Model& model, Batches& batches, int64_t count) {
  Tensor loss;
  for (int64_t i = 1; i <= count; ++i) {
    const auto [x, y] = batches.next();
    const auto local = fabric.no_backward_sync(model, i < count);
    const Tensor part = loss_of(model, x, y) / count;
    fabric.backward(part);
    loss = i == 1 ? part.detach() : loss + part.detach();
  }
  return loss;
}

void train(Fabric& fabric, const GptFlags& flags) {
  GptConfig config = flags.config();
  check_outputs(fabric, flags);
  seed_everything(flags.seed);
  const Corpus corpus = load_corpus(flags.data, flags.vocab, config.block_size);
  const std::vector<int64_t> prompt = tokens_of_prompt(corpus.vocabulary, flags.prompt);
  config.vocabulary = corpus.vocabulary.size();
  Gpt net(config);
  if (!flags.init.empty()) load_gpt2(net, flags.init);

  optim::AdamW adamw(decaying_matrices(net, flags.weight_decay), {.lr = flags.peak_lr(), .betas = {0.9, 0.95}});
  optim::LambdaLR schedule(adamw, [&](int64_t step) { return flags.schedule(step); });
  auto [model, optimizer] = fabric.setup(net, adamw);
  auto loader = fabric.setup_dataloaders(
      data::DataLoader(data::RandomTokenBlocks(corpus.train, config.block_size, samples_per_epoch),
                       {.batch_size = flags.batch_size, .seed = flags.seed}));
  const int64_t blocks_per_step = flags.batch_size * flags.accumulate * fabric.world_size();
  const auto validation =
      spread(data::TokenBlocks(corpus.validation, config.block_size), flags.eval_batches * blocks_per_step);

  const State state = {{"identity", identity_of(config, corpus.vocabulary)},
                       {"model", model},
                       {"optimizer", optimizer},
                       {"schedule", schedule}};
  if (!flags.resume.empty()) fabric.load(flags.resume, state);
  const auto validate = [&, &model = model] {
    const double loss = validation_loss(fabric, model, validation, flags.batch_size);
    fabric.log("validation_loss", loss, fabric.global_step());
    if (!flags.checkpoints.empty()) fabric.save(flags.checkpoint(), state);
    return str("step ", fabric.global_step(), ": validation loss ", std::round(loss * 1e4) / 1e4);
  };

  const auto enough = [&] { return flags.max_steps > 0 && fabric.global_step() >= flags.max_steps; };
  if (fabric.global_step() < flags.steps) {
    Progress progress({.title = "step",
                       .total = flags.steps,
                       .first = fabric.global_step(),
                       .samples_per_step = blocks_per_step * config.block_size,
                       .unit = "tokens",
                       .enabled = fabric.is_global_zero()});
    Endless batches(loader);
    int skipped = 0;
    while (fabric.global_step() < flags.steps && !enough()) {
      optimizer.zero_grad();
      const Tensor loss = accumulate(fabric, model, batches, flags.accumulate);
      const double norm =
          flags.clip > 0 ? fabric.clip_gradients(model, optimizer, {.max_norm = flags.clip}).item<double>() : 0;
      const double lr = schedule.get_last_lr()[0];
      if (!optimizer.step()) {  // the loss scale overflowed
        check(++skipped < most_skipped, "the gradients of ", skipped, " steps in a row were not finite");
        continue;
      }
      skipped = 0;
      schedule.step();

      const int64_t step = fabric.global_step();
      progress.step([&] { return loss.item<double>(); });
      if (!flags.log.empty())
        fabric.log_dict({{"loss", fabric.all_reduce(loss).item<double>()}, {"lr", lr}, {"gradient_norm", norm}}, step);
      const bool last = step >= flags.steps;  // validated below
      if (!last && flags.eval_every > 0 && step % flags.eval_every == 0)
        progress.between(validate);
      else if (!last && flags.save_every > 0 && step % flags.save_every == 0)
        fabric.save(flags.checkpoint(), state);
    }
    if (fabric.global_step() < flags.steps) {
      if (!flags.checkpoints.empty()) fabric.save(flags.checkpoint(), state);
      return;
    }
  }
  fabric.print(validate());
  if (!flags.save_weights.empty()) save_gpt2(fabric, model, flags.save_weights);
  if (flags.sample > 0) fabric.print(written(model, corpus.vocabulary, prompt, flags));
}

}  // namespace

int main(int argc, char** argv) {
  GptFlags flags;
  CLI::App app("Trains a GPT on a text with Fabric, and has it write");
  flags.add_to(app);
  CLI11_PARSE(app, argc, argv);

  FabricOptions options{.accelerator = flags.accelerator,
                        .strategy = flags.strategy,
                        .devices = flags.devices,
                        .precision = flags.precision};
  if (!flags.log.empty()) options.loggers.push_back(std::make_shared<CsvLogger>(CsvLoggerOptions{.root = flags.log}));
  Fabric fabric(options);
  return fabric.launch(argc, argv, [&] { train(fabric, flags); });
}
