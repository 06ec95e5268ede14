// Trains a convolutional network on Fashion-MNIST with a plain loop, on one process. image_classifier.cpp is the same
// program with Fabric.
#include "image_classifier.h"

#include <loom/fabric/progress.h>
#include <loom/nn/optim/adam.h>

using namespace loom;

namespace {

double accuracy(const Classifier& net, data::DataLoader<data::FashionMnist>& loader) {
  const NoGrad off;
  int64_t correct = 0, total = 0;
  for (auto [x, y] : loader) {
    correct += sum(argmax(net(x), 1) == y).item<int64_t>();
    total += y.numel();
  }
  return static_cast<double>(correct) / static_cast<double>(total);
}

void train(const Flags& flags) {
  seed_everything(flags.seed);
  Classifier net;
  optim::AdamW optimizer(nn::parameters(net), {.lr = flags.lr});
  data::DataLoader loader(data::FashionMnist("train", {.root = flags.data}),
                          {.batch_size = flags.batch_size, .shuffle = true, .seed = flags.seed});
  data::DataLoader test_loader(data::FashionMnist("test", {.root = flags.data}), {.batch_size = 500});

  for (int epoch = 0; epoch < flags.epochs; ++epoch) {
    Progress progress(
        {.title = str("epoch ", epoch + 1), .total = loader.size(), .samples_per_step = flags.batch_size});
    for (auto [x, y] : loader) {
      optimizer.zero_grad();
      const Tensor loss = cross_entropy(net(x), y);
      loss.backward();
      optimizer.step();
      progress.step([&] { return loss.item<double>(); });
    }
    std::cout << str("epoch ", epoch + 1, ": test accuracy ", accuracy(net, test_loader), "\n");
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
