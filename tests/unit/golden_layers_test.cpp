// SPDX-License-Identifier: Apache-2.0
// Layers against PyTorch: state keys, outputs, gradients of inputs and parameters, buffers afterwards.
#include <loom/autograd/engine.h>
#include <loom/nn/nn.h>

#include "golden.h"

namespace {

using namespace loom;
using Args = std::vector<Tensor>;

std::set<std::string> seen;

template <class Net, class Call>
void run(const std::string& name, const Net& original, const Call& call, DType dtype) {
  const golden::Tensors& expected = golden::file("layers");
  Net net = nn::clone(original);
  nn::load_state_dict(net, golden::below(expected, name + ".state."));
  nn::to(net, dtype);
  const Args inputs = golden::leaves(expected, name + ".in", dtype, true);
  const Args outputs = call(net, inputs);
  const Args cotangents = golden::leaves(expected, name + ".cotangent", dtype, false);
  const Args values = golden::leaves(expected, name + ".out", dtype, false);
  REQUIRE(outputs.size() == values.size());
  for (size_t i = 0; i < outputs.size(); ++i)
    golden::check_close(str(name, " output ", i), outputs[i], expected.at(str(name, ".out.", i)));
  backward(outputs, cotangents);
  std::map<std::string, Tensor> leaves;
  for (const auto& [key, tensor] : nn::parameters(net)) leaves[key] = tensor;
  for (size_t i = 0; i < inputs.size(); ++i) leaves[std::to_string(i)] = inputs[i];
  for (const auto& [key, grad] : golden::below(expected, name + ".grad."))
    golden::check_close(str(name, " gradient of ", key), leaves.at(key).grad(), grad);
  for (const auto& [key, buffer] : nn::buffers(net))
    golden::check_close(str(name, " buffer ", key), buffer, expected.at(str(name, ".after.", key)));
}

template <class Net, class Call>
void layer(const std::string& name, const Net& net, const Call& call) {
  CAPTURE(name);
  seen.insert(name);
  run(name, net, call, DType::f64);
  run(name, net, call, DType::f32);
}
template <class Net>
void layer(const std::string& name, const Net& net) {
  layer(name, net, [](const Net& n, const Args& x) { return Args{n(x[0])}; });
}

Args tensors(const nn::RecurrentOutput& y) { return {y.output, y.h_n}; }
Args tensors(const nn::LstmOutput& y) { return {y.output, y.h_n, y.c_n}; }

void affine_and_pooling() {
  layer("linear", nn::Linear(4, 3));
  layer("bilinear", nn::Bilinear(3, 4, 2), [](const auto& n, const Args& x) { return Args{n(x[0], x[1])}; });
  layer("conv1d", nn::Conv1d(3, 4, 3, {.stride = 2, .padding = 1}));
  layer("conv2d", nn::Conv2d(4, 6, {3, 2}, {.stride = {2, 1}, .padding = {1, 0}, .groups = 2}));
  layer("conv2d_same", nn::Conv2d(2, 3, {3, 4}, {.padding = "same", .bias = false}));
  layer("conv_transpose2d",
        nn::ConvTranspose2d(4, 6, 3, {.stride = 2, .padding = 1, .output_padding = 1, .groups = 2}));
  layer("max_pool1d", nn::MaxPool1d{2});
  layer("max_pool2d", nn::MaxPool2d{3, 2, 1});
  layer("avg_pool2d", nn::AvgPool2d{.kernel_size = 2, .padding = 1, .count_include_pad = false});
  layer("adaptive_avg_pool2d", nn::AdaptiveAvgPool2d{{2, 3}});
  layer("prelu", nn::PReLU(3));
  layer("embedding", nn::Embedding(5, 3, {.padding_idx = -1}));
  layer("sequential", nn::Sequential(nn::Linear(4, 5), nn::ReLU(),
                                     nn::Sequential<nn::Linear, nn::GELU>(nn::Linear(5, 3), nn::GELU())));
}

void norms() {
  layer("batch_norm1d", nn::BatchNorm1d(4));
  layer("batch_norm2d", nn::BatchNorm2d(3, {.momentum = std::nullopt}), [](const auto& n, const Args& x) {
    return Args{n(x[0] * 2.0), n(x[0])};
  });
  nn::BatchNorm1d fixed(4);
  nn::eval(fixed);
  layer("batch_norm_eval", fixed);
  layer("layer_norm", nn::LayerNorm(Dims{3, 4}));
  layer("rms_norm", nn::RMSNorm(4, {.eps = 1e-6}));
  layer("group_norm", nn::GroupNorm(2, 4));
}

void attention() {
  using nn::MultiheadAttention;
  const auto pair = [](const std::pair<Tensor, Tensor>& y) {
    return y.second.defined() ? Args{y.first, y.second} : Args{y.first};
  };
  layer("attention", MultiheadAttention(6, 2), [&](const auto& n, const Args& x) { return pair(n(x[0], x[0], x[0])); });
  layer("attention_cross", MultiheadAttention(6, 2, {.bias = false, .kdim = 4, .vdim = 5, .batch_first = true}),
        [&](const auto& n, const Args& x) { return pair(n(x[0], x[1], x[2])); });
  const Tensor padding = tensor({{0, 0, 1}, {0, 0, 0}}).to(DType::boolean);
  const Tensor later = triu(ones({3, 3}, DType::boolean), 1);
  layer("attention_masks", MultiheadAttention(6, 3, {.batch_first = true}), [&](const auto& n, const Args& x) {
    return pair(n(x[0], x[0], x[0], {.key_padding_mask = padding, .attn_mask = later, .average_attn_weights = false}));
  });
  layer("attention_fast", MultiheadAttention(6, 3, {.batch_first = true}),
        [&](const auto& n, const Args& x) { return pair(n(x[0], x[1], x[1], {.need_weights = false})); });
}

void recurrent() {
  const auto alone = [](const auto& n, const Args& x) { return tensors(n(x[0])); };
  const auto with_state = [](const auto& n, const Args& x) { return tensors(n(x[0], x[1])); };
  layer("rnn", nn::RNN(3, 4), alone);
  layer("rnn_relu", nn::RNN(3, 4, {.nonlinearity = "relu", .batch_first = true, .bidirectional = true}), with_state);
  layer("gru", nn::GRU(3, 4, {.num_layers = 2, .bidirectional = true}), alone);
  layer("gru_unbatched", nn::GRU(3, 4, {.bias = false}), with_state);
  layer("lstm", nn::LSTM(3, 4), alone);
  layer("lstm_deep", nn::LSTM(3, 4, {.num_layers = 2, .batch_first = true, .bidirectional = true}),
        [](const auto& n, const Args& x) { return tensors(n(x[0], x[1], x[2])); });
}

}  // namespace

TEST_CASE("layers are PyTorch's: keys, outputs, gradients, buffers") {
  affine_and_pooling();
  norms();
  attention();
  recurrent();
  CHECK(seen == golden::cases(golden::file("layers")));
}
