// Trains a convolutional network on Fashion-MNIST with Fabric: on any number of ranks, with checkpoints.
//   image_classifier --devices 2            or            mpirun -n 2 image_classifier
// image_classifier_plain.cpp is the same program without Fabric.
#include "image_classifier.h"

#include <filesystem>

#include <loom/fabric/csv_logger.h>
#include <loom/fabric/progress.h>
#include <loom/nn/optim/adam.h>

using namespace loom;

namespace {

// Over all ranks, each image counted once.
template <class Model, class Loader>
double accuracy(Fabric& fabric, const Model& model, Loader& loader) {
  const NoGrad off;
  int64_t correct = 0, total = 0;
  for (auto [x, y] : loader) {
    correct += sum(argmax(model(x), 1) == y).template item<int64_t>();
    total += y.numel();
  }
  return fabric.all_reduce(static_cast<double>(correct), "sum") / fabric.all_reduce(static_cast<double>(total), "sum");
}

void train(Fabric& fabric, const Flags& flags) {
  seed_everything(flags.seed);
  Classifier net;
  optim::AdamW adamw(nn::parameters(net), {.lr = flags.lr});
  auto [model, optimizer] = fabric.setup(net, adamw);
  auto loader =
      fabric.setup_dataloaders(data::DataLoader(data::FashionMnist("train", {.root = flags.data}),
                                                {.batch_size = flags.batch_size, .shuffle = true, .seed = flags.seed}));
  auto test_loader = fabric.setup_dataloaders(
      data::DataLoader(data::FashionMnist("test", {.root = flags.data}), {.batch_size = 500}), {.exact = true});

  const auto checkpoint = std::filesystem::path(flags.checkpoints) / "last.safetensors";
  const State state = {{"model", model}, {"optimizer", optimizer}};
  if (!flags.resume.empty()) fabric.load(flags.resume, state);
  if (loader.state().epoch >= flags.epochs)  // nothing is left to do
    fabric.print("epoch ", loader.state().epoch, ": test accuracy ", accuracy(fabric, model, test_loader));

  while (loader.state().epoch < flags.epochs) {
    const int64_t epoch = loader.state().epoch, batch = flags.batch_size * fabric.world_size();
    Progress progress({.title = str("epoch ", epoch + 1),
                       .total = loader.size(),
                       .first = loader.state().position / batch,
                       .samples_per_step = batch,
                       .enabled = fabric.is_global_zero()});
    for (auto [x, y] : loader) {
      optimizer.zero_grad();
      const Tensor loss = cross_entropy(model(x), y);
      fabric.backward(loss);
      optimizer.step();
      progress.step([&] { return loss.item<double>(); });
      if (!flags.log.empty()) fabric.log("loss", fabric.all_reduce(loss), fabric.global_step());
      if (flags.save_every > 0 && fabric.global_step() % flags.save_every == 0) fabric.save(checkpoint, state);
      if (flags.max_steps > 0 && fabric.global_step() >= flags.max_steps) return;
    }
    fabric.print("epoch ", epoch + 1, ": test accuracy ", accuracy(fabric, model, test_loader));
    if (!flags.checkpoints.empty()) fabric.save(checkpoint, state);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Trains an image classifier on Fashion-MNIST with Fabric");
  flags.add_common(app);
  flags.add_fabric(app);
  CLI11_PARSE(app, argc, argv);

  FabricOptions options{.accelerator = flags.accelerator,
                        .strategy = flags.strategy,
                        .devices = flags.devices,
                        .precision = flags.precision};
  if (!flags.log.empty()) options.loggers.push_back(std::make_shared<CsvLogger>(CsvLoggerOptions{.root = flags.log}));
  Fabric fabric(options);
  return fabric.launch(argc, argv, [&] { train(fabric, flags); });
}
