#include <loom/autograd/fp8.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iostream>
#include <limits>
#include <utility>

#include <loom/accelerators/float8.h>
#include <loom/accelerators/fused.h>
#include <loom/autograd/autocast.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/linear_gradients.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/create.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

namespace {

constexpr int64_t step = 16;        // of which extents and addresses are multiples
constexpr int64_t head_length = 3;  // numbers of a scaling before its history
constexpr int64_t block_layers = 64;

enum Role : size_t { input, weight, gradient };
constexpr std::array role_names{"input", "weight", "gradient"};
constexpr std::array role_formats{Fp8::e4m3, Fp8::e4m3, Fp8::e5m2};

FusedKernels& kernels_on(Device device) {
  const std::string lacks = fp8_obstacle(device);
  check(lacks.empty(), "linear: products of 8 bits need ", lacks);
  return *accelerator(device).fused();
}

// What a tensor of f8 and the rest of it are: codes [rows, columns], and what a code is multiplied with.
struct Codes {
  Tensor codes, inverse;
  Codes turned() const { return {raw::clone(codes.t()), inverse}; }
};

// The leaf that x is, or is a view of by a transposition; null: neither.
std::shared_ptr<Meta> leaf_of(const Tensor& x) {
  const Tensor::Body& body = x.body();
  if (!body.node) return body.meta;
  const bool turned = body.node->op == &ops::transpose || body.node->op == &ops::permute;
  return turned ? body.node->inputs[0].leaf : nullptr;
}

int64_t rounded_up(int64_t n) { return (n + step - 1) / step * step; }

// A first use takes its factor from what it sees, which a graph would do at every replay.
void refuse_first_use() {
  check(context().capture == nullptr, "fp8-mixed: a layer is used for the first time in a step that is captured; do a ",
        "training step as it is before (DeviceGraph's warm_up)");
}

}  // namespace

std::string fp8_obstacle(Device device) {
  if (device.kind == Device::cpu) return str("a CUDA device of compute capability 8.9 or later, and this is ", device);
  FusedKernels* const kernels = accelerator(device).fused();
  return kernels != nullptr ? kernels->fp8_obstacle() : str("kernels for it, which ", device, " lacks");
}

struct Fp8Layers::Layer {
  std::weak_ptr<Meta> leaf;
  Storage* memory = nullptr;  // of the weight: views have it too. Its address is another's where the leaf has gone.
  std::array<Tensor, 3> states;
  std::array<bool, 3> used{};
  bool fits = true;

  Codes quantize(Role role, const Tensor& x, int64_t rows, Fp8 format, double margin);
};

struct Fp8Layers::Block {
  Tensor states;  // [layers, roles, head and history]
  Tensor most;    // [1, roles, 1]: what a factor brings the largest magnitude to
  int64_t used = 0;
};

// [roles, head and history], with factors of 1.
Tensor Fp8Layers::states_of_next(Device device) {
  refuse_first_use();
  if (blocks_.empty() || blocks_.back().used == block_layers || blocks_.back().states.device() != device) {
    constexpr auto roles = static_cast<int64_t>(role_names.size());
    const TensorOptions like(DType::f32, device);
    std::vector<float> most;
    most.reserve(role_formats.size());
    for (const Fp8 format : role_formats)
      most.push_back(static_cast<float>(static_cast<double>(largest(format)) / std::exp2(options_.margin)));
    const Tensor states = zeros({block_layers, roles, head_length + options_.history}, like);
    raw::fill_into(raw::slice(states, 2, 0, 2, 1), 1);
    blocks_.push_back({states, from_vector(most, {1, roles, 1}, like)});
  }
  Block& block = blocks_.back();
  return raw::select(block.states, 0, block.used++);
}

// Of the last use's factors the least counts, which evaluation takes: with it nobody's numbers are clamped.
void Fp8Layers::merge(const std::function<void(const Tensor&)>& largest) {
  const NoGrad off;
  const NoAutocast as_given;
  for (const Block& block : blocks_) {
    const Tensor own = raw::slice(block.states, 0, 0, block.used, 1), all = raw::clone(own);
    const Tensor now = raw::slice(all, 2, 0, 1, 1), before = raw::slice(all, 2, 1, 2, 1);
    before.mul_(-1.0);
    largest(all);
    before.mul_(-1.0);
    const Tensor seen = amax(raw::slice(all, 2, head_length, all.size(2), 1), {2}, true);
    const Tensor next = (block.most / seen).clamp(0, std::numeric_limits<float>::max());
    raw::copy_into(now, where(seen > 0.0, next, now));
    raw::copy_into(own, all);
  }
}

// x as [rows of x, columns] in codes; rows past its own are zeros.
Codes Fp8Layers::Layer::quantize(Role role, const Tensor& x, int64_t rows, Fp8 format, double margin) {
  const int64_t columns = x.size(-1), own = x.numel() / columns;
  Codes out{empty({rows, columns}, {DType::u8, x.device()}), empty({1}, {DType::f32, x.device()})};
  if (rows > own) raw::fill_into(raw::slice(out.codes, 0, own, rows, 1), 0);
  // Evaluation looks on: it takes the factor of the last use, and leaves none behind.
  const bool again = used[role] && (recomputing() || (role != gradient && !context().grad_mode));
  if (!used[role]) refuse_first_use();
  const Fp8Scaling scaling{states[role], format, margin, !used[role], again};
  const View first = view_over(View(out.codes).data, DType::u8, {own, columns}, x.device());
  kernels_on(x.device()).fp8_quantize(first, out.inverse, raw::reshape(x, {own, columns}), scaling);
  used[role] = true;
  return out;
}

namespace {

Tensor product(const Codes& a, const Codes& b, Fp8 a_format, const Tensor& bias, DType dtype) {
  Tensor y = empty({a.codes.size(0), b.codes.size(0)}, {dtype, a.codes.device()});
  kernels_on(y.device())
      .fp8_gemm({.c = y,
                 .a = a.codes,
                 .b = b.codes,
                 .bias = bias.defined() ? View(bias) : View(),
                 .a_inverse = a.inverse,
                 .b_inverse = b.inverse,
                 .a_format = a_format,
                 .b_format = Fp8::e4m3,
                 .fast = a_format == Fp8::e4m3});
  return y;
}

// The first `count` rows, which are dense.
Tensor first_rows(const Tensor& x, int64_t count, const Dims& shape) {
  return raw::reshape(raw::slice(x, 0, 0, count, 1), shape);
}

// g^T x of [rows, out] and [rows, in]: f32, into the weight's .grad where it may go there directly.
Tensor weight_product(const Codes& g, const Codes& x) {
  const Codes a = g.turned(), b = x.turned();
  const auto [memory, adds, dtype] = destination(1);
  const bool fits = memory.defined() && memory.dtype() == DType::f32 && memory.is_contiguous() &&
                    reinterpret_cast<uintptr_t>(View(memory).data) % step == 0;  // buckets begin anywhere
  if (!fits) return product(a, b, Fp8::e5m2, {}, DType::f32);
  kernels_on(memory.device())
      .fp8_gemm({.c = memory,
                 .a = a.codes,
                 .b = b.codes,
                 .a_inverse = a.inverse,
                 .b_inverse = b.inverse,
                 .a_format = Fp8::e5m2,
                 .b_format = Fp8::e4m3,
                 .beta = adds ? 1.0 : 0.0});
  memory.storage()->bump_version();
  return memory;
}

}  // namespace

Fp8Layers::Fp8Layers(const Fp8Options& options) : options_(options) {
  check(options.history >= 1, "Fp8Options: history is ", options.history, ", expected at least 1");
}
Fp8Layers::~Fp8Layers() = default;

Fp8Layers::Layer* Fp8Layers::layer_of(const Tensor& weight) {
  Storage* const memory = weight.storage().get();
  const std::shared_ptr<Meta> leaf = leaf_of(weight);
  for (const auto& layer : layers_)
    if (const auto own = layer->leaf.lock(); own && layer->memory == memory && (!leaf || leaf == own))
      return layer.get();
  if (!leaf || !leaf->requires_grad) return nullptr;
  const Tensor states = states_of_next(weight.device());
  const auto index = layers_.size();
  Layer& layer = *layers_.emplace_back(std::make_unique<Layer>());
  layer.leaf = leaf;
  layer.memory = memory;
  layer.fits = weight.size(0) % step == 0 && weight.size(1) % step == 0;
  if (!layer.fits)
    std::cerr << str("loom: fp8-mixed: a linear layer with a weight of shape ", weight.shape(),
                     " multiplies in bf16; products of 8 bits need extents that are multiples of ", step, "\n");
  for (size_t role = 0; role < role_names.size(); ++role) {
    const auto found = waiting_.find(str(index, '.', role_names[role]));
    layer.used[role] = found != waiting_.end();
    layer.states[role] = raw::select(states, 0, static_cast<int64_t>(role));
    if (layer.used[role]) raw::copy_into(layer.states[role], found->second);
  }
  return &layer;
}

Tensor Fp8Layers::linear(const Tensor& x_, const Tensor& weight_, const Tensor& bias_) {
  const Tensor &x = resolve(x_), &weight = resolve(weight_), &bias = resolve(bias_);
  if (weight.dim() != 2 || x.dim() == 0 || x.numel() == 0 || !is_floating(x.dtype()) || x.dtype() == DType::f64 ||
      weight.dtype() == DType::f64)
    return {};
  const NoAutocast as_given;
  Layer* const layer = layer_of(weight_);
  if (layer == nullptr || !layer->fits) return {};
  const int64_t in = weight.size(1), out = weight.size(0), own = x.numel() / std::max<int64_t>(x.size(-1), 1);
  check(x.size(-1) == in, "linear: the input of shape ", x.shape(), " has ", x.size(-1), " features, weight ",
        weight.shape(), " expects ", in);
  raw::check_same_device("linear", x, weight);
  if (bias.defined()) {
    raw::check_same_device("linear", x, bias);
    check(bias.shape() == Dims{out}, "linear: bias must be [", out, "], got shape ", bias.shape());
  }
  const int64_t rows = rounded_up(own);
  const Codes inputs = layer->quantize(Role::input, x, rows, Fp8::e4m3, options_.margin),
              weights = layer->quantize(Role::weight, weight, out, Fp8::e4m3, options_.margin);
  Dims shape = x.shape();
  shape.back() = out;
  const Tensor offset = bias.defined() ? raw::cast(bias, DType::bf16) : bias;
  Tensor y = first_rows(product(inputs, weights, Fp8::e4m3, offset, DType::bf16), own, shape);
  return record(ops::linear, std::move(y), {x, weight, bias},
                [layer, margin = options_.margin, rows, own, x_shape = x.shape(), x_codes = save(inputs.codes),
                 x_inverse = save(inputs.inverse), w_codes = save(weights.codes), w_inverse = save(weights.inverse),
                 keeps = context().fp8](const Tensor& g, const Needs& needs) {
                  check(!context().grad_mode,
                        "linear: products of 8 bits have no second derivatives; use 'bf16-mixed' for them");
                  const Codes grads_in = layer->quantize(Role::gradient, g, rows, Fp8::e5m2, margin);
                  Grads grads(3);
                  if (needs[0]) {
                    const Codes turned = Codes{w_codes(), w_inverse()}.turned();
                    grads[0] = first_rows(product(grads_in, turned, Fp8::e5m2, {}, DType::bf16), own, x_shape);
                  }
                  if (needs[1]) grads[1] = weight_product(grads_in, {x_codes(), x_inverse()});
                  if (needs[2]) grads[2] = sum(reshape(g, {own, g.size(-1)}), {0});
                  return grads;
                });
}

std::map<std::string, Tensor> Fp8Layers::state_dict() const {
  std::map<std::string, Tensor> out = waiting_;
  for (size_t i = 0; i < layers_.size(); ++i)
    for (size_t role = 0; role < role_names.size(); ++role)
      if (layers_[i]->used[role]) out[str(i, '.', role_names[role])] = layers_[i]->states[role];
  return out;
}

void Fp8Layers::check_state_dict(const std::map<std::string, Tensor>& saved) const {
  for (const auto& [name, state] : saved)
    check(state.dtype() == DType::f32 && state.shape() == Dims{head_length + options_.history},
          "fp8-mixed: the scaling '", name, "' is ", state.dtype(), " of shape ", state.shape(),
          ", expected f32 of shape [", head_length + options_.history, "] (the same history as when it was saved)");
}

void Fp8Layers::load_state_dict(const std::map<std::string, Tensor>& saved) {
  check_state_dict(saved);
  waiting_.clear();
  for (const auto& [name, state] : saved) waiting_[name] = state.clone();
  for (size_t i = 0; i < layers_.size(); ++i)
    for (size_t role = 0; role < role_names.size(); ++role)
      if (const auto found = saved.find(str(i, '.', role_names[role])); found != saved.end()) {
        raw::copy_into(layers_[i]->states[role], found->second);
        layers_[i]->used[role] = true;
      }
}

Fp8Region::Fp8Region(const std::shared_ptr<Fp8Layers>& layers) : previous_(std::exchange(context().fp8, layers)) {}
Fp8Region::~Fp8Region() { context().fp8 = previous_; }

}  // namespace loom
