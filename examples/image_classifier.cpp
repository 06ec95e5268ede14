// Trains a convolutional network on Fashion-MNIST with Fabric: on any number of ranks, with checkpoints.
//   image_classifier --devices 2            or            mpirun -n 2 image_classifier
// image_classifier_plain.cpp is the same program without Fabric.
#include "image_classifier.h"

#include "outputs.h"

using namespace loom;

namespace {

void train(Fabric& fabric, const Flags& flags) {
  if (!flags.checkpoints.empty()) check_checkpoint_writable(fabric, flags.last());
  if (!flags.log.empty()) check_log_writable(fabric, flags.log);
  seed_everything(flags.seed);
  Classifier net;
  optim::AdamW adamw(nn::parameters(net), {.lr = flags.lr});
  auto [model, optimizer] = fabric.setup(net, adamw);
  auto loader = fabric.setup_dataloaders(training_images(flags));
  auto test_loader = fabric.setup_dataloaders(test_images(flags), {.exact = true});
  optim::LambdaLR schedule(adamw, falling_rate(flags, loader));

  const State state = {{"model", model}, {"optimizer", optimizer}, {"schedule", schedule}};
  if (!flags.resume.empty()) fabric.load(flags.resume, state);
  const auto enough = [&] { return flags.max_steps > 0 && fabric.global_step() >= flags.max_steps; };
  const auto whole_epochs = [&] {  // a loop that was left at its last batch has seen all
    return loader.state().epoch + (loader.state().position >= loader.dataset().size() ? 1 : 0);
  };
  const auto done = [&] { return whole_epochs() >= flags.epochs || enough(); };
  const auto report = [&] {
    const std::string when = enough() ? str("step ", fabric.global_step()) : str("epoch ", whole_epochs());
    fabric.print(when, ": test accuracy ",
                 accuracy(fabric.all_reduce(score(model, test_loader, fabric.device()), "sum")));
  };
  if (done()) report();  // nothing is left to do

  while (!done()) {
    const int64_t before = whole_epochs();
    Progress progress(progress_of(loader, flags.batch_size * fabric.world_size(), fabric.is_global_zero()));
    for (auto [x, y] : loader) {
      optimizer.zero_grad();
      const Tensor loss = cross_entropy(model(x), y);
      fabric.backward(loss);
      optimizer.step();
      schedule.step();
      progress.step([&] { return loss.item<double>(); });
      if (!flags.log.empty()) fabric.log("loss", fabric.all_reduce(loss), fabric.global_step());
      if (flags.save_every > 0 && fabric.global_step() % flags.save_every == 0) fabric.save(flags.last(), state);
      if (enough()) break;
    }
    if (whole_epochs() > before) report();
    if (!flags.checkpoints.empty()) fabric.save(flags.last(), state);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Trains an image classifier on Fashion-MNIST with Fabric");
  flags.add_common(app);
  flags.add_fabric(app);
  CLI11_PARSE(app, argc, argv);
  Fabric fabric(flags.fabric());
  return fabric.launch(argc, argv, [&] { train(fabric, flags); });
}
