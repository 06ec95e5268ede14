// The training rows: a model on as many ranks as the launcher gives, from the weights and samples of a fixture, so that
// a peer which starts from the same files must see the same losses. To add a model: a header in models/, a line in
// `models` here, its twin in peers/models/.
#include "training.h"

#include <array>
#include <string_view>

#include "models/cnn.h"
#include "models/gpt.h"
#include "models/lstm.h"
#include "models/mlp.h"
#include "models/resnet.h"
#include "models/resnet50.h"

namespace bench {

using namespace loom;

namespace {

template <class Net>
void write_fixture(const Options& options) {
  const std::filesystem::path folder = options.text("out", ".");
  std::filesystem::create_directories(folder);
  manual_seed(1);
  const Net net(options);
  const Samples samples = net.samples(options.number("samples", 256));
  save_safetensors(folder / "samples.safetensors", {{"inputs", samples.inputs}, {"targets", samples.targets}});
  std::map<std::string, Tensor> weights;
  for (const NamedTensor& p : nn::state_dict(net)) weights.emplace(p.name, p.tensor);
  save_safetensors(folder / "weights.safetensors", weights);
}

struct Model {
  std::string_view name;
  void (*fixture)(const Options&);
  Training (*train)(Fabric&, const Options&);
};

template <class Net>
constexpr Model model(std::string_view name) {
  return {name, write_fixture<Net>, train<Net>};
}
constexpr std::array models{model<Mlp>("mlp"),           model<Cnn>("cnn"),   model<ResNet>("resnet"),
                            model<ResNet50>("resnet50"), model<Lstm>("lstm"), model<Gpt>("gpt")};

const Model& chosen(const Options& options) {
  const std::string name = options.text("model");
  for (const Model& model : models)
    if (model.name == name) return model;
  throw Error(str("no model '", name, "'"));
}

// Operations a second that the device can do at most, in the precision of the products.
double peak_flops(Device device, const Options& options) {
  if (device.kind == Device::cpu) return fma_peak();
  const DeviceLimits limits = device_limits(device, options.smoke());
  return options.text("precision", "32-true").starts_with("32") ? limits.flops : limits.bf16;
}

// Seconds of a step when `key` has this value.
double step_seconds(Options options, const std::string& key, const std::string& value) {
  options.set(key, value);
  Fabric fabric({.accelerator = "cpu"});
  double seconds = 0;
  fabric.launch([&] { seconds = chosen(options).train(fabric, options).times.median; });
  return seconds;
}

}  // namespace

void run_fixture(const Options& options) { chosen(options).fixture(options); }

void run_train(const Options& options) {
  Fabric fabric({.accelerator = options.text("device", "cpu"), .precision = options.text("precision", "32-true")});
  fabric.launch([&] {
    const Training result = chosen(options).train(fabric, options);
    const double peak = peak_flops(fabric.device(), options);  // all ranks at once, as they computed
    if (!fabric.is_global_zero()) return;
    Record("step", result.times.median * 1e3, "ms")
        .add("limit", result.flops / peak * 1e3)
        .add("bound", "products")
        .add("mean", result.times.mean * 1e3)
        .add("samples_per_s", static_cast<double>(result.samples) / result.times.median)
        .add("losses", result.losses)
        .print();
    Record("peak memory", result.memory, "MiB").print();
    if (fabric.device().kind == Device::cpu) return;
    Record("throughput", result.units / result.times.median, "units/s").print();
    if (result.nominal > 0)
      Record("nominal", result.nominal / result.times.median * 1e-9, "GFLOP/s")
          .add("limit", peak * 1e-9)
          .add("bound", "products")
          .print();
  });
}

// The step time over one key of the model, such as batch=16-32-64, each beside its value (peers/training.py).
void run_growth(const Options& options) {
  const std::string key = options.text("over", "batch");
  for (const int64_t value : options.numbers("values", {16, 32, 64}))
    Record(str(key, " ", value), step_seconds(options, key, std::to_string(value)) * 1e3, "ms")
        .add("x", static_cast<double>(value))
        .print();
}

}  // namespace bench
