// Linear layers that multiply in 8 bits: inputs and weights in E4M3, gradients in E5M2, each tensor scaled by what its
// largest magnitudes have been (delayed scaling, as NVIDIA's Transformer Engine does it). Products are summed in f32;
// results are bf16, gradients of weights f32. Scales and histories stay on the device.
//
//   { const Autocast region(bf16); const Fp8Region eighths(layers);  loss = cross_entropy(net(x), y); }
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <loom/tensor/tensor.h>

namespace loom {

struct Fp8Options {
  int64_t history = 1024;  // uses that a scale looks back on
  double margin = 0;       // scales leave room for magnitudes 2^margin times those seen
};

// What products of 8 bits lack on a device ("a CUDA device, ..."); empty: nothing.
std::string fp8_obstacle(Device device);

// The scaling of each linear layer that has been used, known by its weight. Layers are numbered in the order of their
// first use, which is also how checkpoints name them.
class Fp8Layers {
 public:
  explicit Fp8Layers(const Fp8Options& options = {});
  ~Fp8Layers();
  Fp8Layers(const Fp8Layers&) = delete;
  Fp8Layers& operator=(const Fp8Layers&) = delete;

  const Fp8Options& options() const { return options_; }
  // linear() in 8 bits; undefined where this layer cannot: its weight is no parameter (or its transpose), not a matrix,
  // or has extents that are no multiples of 16, which stderr is told of once a layer. Errors as linear(), and where the
  // device has no products of 8 bits.
  Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias);

  // Makes the scalings of several ranks one, for all that their layers have noted: `largest` is to replace an f32
  // tensor by the largest of the ranks', each of which calls it as often (once for 64 layers). Ranks use the same
  // layers in the same order. Factors of the next uses follow from the common histories; the host reads nothing.
  void merge(const std::function<void(const Tensor&)>& largest);

  // "0.input", "0.weight", "0.gradient", ...: f32 [3 + history] each (accelerators/fused.h).
  std::map<std::string, Tensor> state_dict() const;
  void check_state_dict(const std::map<std::string, Tensor>& saved) const;
  // Scales of layers that have not been used yet wait for them.
  void load_state_dict(const std::map<std::string, Tensor>& saved);

 private:
  struct Layer;
  struct Block;  // the scalings of several layers, side by side; it stays where it is
  Layer* layer_of(const Tensor& weight);
  Tensor states_of_next(Device device);
  Fp8Options options_;
  std::vector<std::unique_ptr<Layer>> layers_;
  std::vector<Block> blocks_;
  std::map<std::string, Tensor> waiting_;  // loaded, for layers to come
};

// In its scope linear() under autocast asks the layers first.
class Fp8Region {
 public:
  explicit Fp8Region(const std::shared_ptr<Fp8Layers>& layers);
  ~Fp8Region();
  Fp8Region(const Fp8Region&) = delete;
  Fp8Region& operator=(const Fp8Region&) = delete;

 private:
  std::shared_ptr<Fp8Layers> previous_;
};

}  // namespace loom
