// Trains a convolutional network on Fashion-MNIST with a plain loop, on one process. image_classifier.cpp is the same
// program with Fabric.
#include "image_classifier.h"

using namespace loom;

namespace {

void train(const Flags& flags) {
  seed_everything(flags.seed);
  Classifier model;
  optim::AdamW optimizer(nn::parameters(model), {.lr = flags.lr});
  auto loader = training_images(flags);
  auto test_loader = test_images(flags);
  optim::LambdaLR schedule(optimizer, falling_rate(flags, loader));

  while (loader.state().epoch < flags.epochs) {
    Progress progress(progress_of(loader, flags.batch_size));
    for (auto [x, y] : loader) {
      optimizer.zero_grad();
      const Tensor loss = cross_entropy(model(x), y);
      loss.backward();
      optimizer.step();
      schedule.step();
      progress.step([&] { return loss.item<double>(); });
    }
    std::cout << str("epoch ", loader.state().epoch, ": test accuracy ", accuracy(score(model, test_loader)), "\n");
  }
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Trains an image classifier on Fashion-MNIST with a plain loop");
  flags.add_common(app);
  CLI11_PARSE(app, argc, argv);
  try {
    train(flags);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
