// Training steps through Fabric, on as many ranks as the launcher gives, from the weights and batches of a fixture: so
// that a peer which starts from the same file must see the same losses.
#include <filesystem>
#include <numeric>

#include <loom/nn/optim/adam.h>
#include <loom/nn/optim/sgd.h>
#include <loom/tensor/safetensors.h>

#include "models.h"
#include "record.h"
#include "row.h"
#include "timing.h"

namespace bench {

using namespace loom;

namespace {

constexpr int64_t compared_losses = 3;  // of the first steps

template <class Net, class Optimizer, class Settings>
void train(const std::string& name, const Options& options, const Settings& settings, int64_t steps, int64_t warmup) {
  Fabric fabric({.accelerator = "cpu"});
  fabric.launch([&] {
    const std::filesystem::path folder = options.text("fixture", ".");
    const auto data = load_safetensors(folder / "batches.safetensors").tensors;
    const Tensor &images = data.at("images"), &labels = data.at("labels");
    const int64_t batch = options.number("batch", 64), world = fabric.world_size();
    const int64_t batches = images.size(0) / (batch * world);
    check(batches > 0, "the fixture has ", images.size(0), " samples, one step needs ", batch * world);

    Net net;
    nn::load_state_dict(net, load_safetensors(folder / (name + ".safetensors")).tensors);
    Optimizer inner(nn::parameters(net), settings);
    auto [model, optimizer] = fabric.setup(net, inner);
    int64_t step = 0;
    std::vector<double> losses;
    const auto one_step = [&] {
      const int64_t start = (step++ % batches * world + fabric.global_rank()) * batch;
      optimizer.zero_grad();
      const Tensor loss = cross_entropy(model(images.narrow(0, start, batch)), labels.narrow(0, start, batch));
      fabric.backward(loss);
      optimizer.step();
      if (step <= compared_losses) losses.push_back(loss.item<double>());
    };
    const Times times = time_steps(std::max(options.number("warmup", warmup), compared_losses),
                                   options.smoke() ? 2 : options.number("steps", steps), one_step);
    if (!fabric.is_global_zero()) return;
    const auto samples = static_cast<double>(batch * world);
    const bool per_step = options.text("unit") == "ms";
    Record(name, per_step ? times.median * 1e3 : samples / times.median, per_step ? "ms" : "samples/s")
        .add("mean", per_step ? times.mean * 1e3 : samples / times.mean)
        .add("losses", losses)
        .print();
  });
}

template <class Net>
void save_weights(const std::filesystem::path& path) {
  const Net net;
  std::map<std::string, Tensor> weights;
  for (const NamedTensor& p : nn::parameters(net)) weights.emplace(p.name, p.tensor);
  save_safetensors(path, weights);
}

}  // namespace

void run_mlp(const Options& options) { train<Mlp, optim::SGD>("mlp", options, optim::SgdOptions{.lr = 0.01}, 300, 50); }

void run_cnn(const Options& options) {
  train<Cnn, optim::AdamW>("cnn", options, optim::AdamWOptions{.lr = 1e-3}, 50, 5);
}

// Fashion-MNIST where it is installed, else noise: the time of a step does not depend on it.
void run_fixture(const Options& options) {
  const std::filesystem::path folder = options.text("out", ".");
  const int64_t samples = options.number("samples", 2048);
  std::filesystem::create_directories(folder);
  manual_seed(1);
  Tensor images, labels;
  try {
    const data::FashionMnist set("train");
    std::vector<int64_t> first(static_cast<size_t>(samples));
    std::iota(first.begin(), first.end(), 0);
    std::tie(images, labels) = set.get_batch(first);
  } catch (const Error&) {
    images = randn({samples, 1, 28, 28});
    labels = randint(0, 10, {samples});
  }
  save_safetensors(folder / "batches.safetensors", {{"images", images}, {"labels", labels}});
  save_weights<Mlp>(folder / "mlp.safetensors");
  save_weights<Cnn>(folder / "cnn.safetensors");
}

}  // namespace bench
