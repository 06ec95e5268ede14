// SPDX-License-Identifier: Apache-2.0
// Every layer, loss and optimizer on a GPU gives what it gives on the CPU: three steps of training, each with its
// outputs, gradients, parameters and buffers.
#include <doctest/doctest.h>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cuda.h>
#include <loom/autograd/engine.h>
#include <loom/autograd/ops.h>
#include <loom/nn/nn.h>
#include <loom/nn/optim/optim.h>
#include <loom/tensor/create.h>

using namespace loom;

namespace {

using Args = std::vector<Tensor>;

bool skipped() {
  if (device_count(Device::cuda) > 0) return false;
  MESSAGE("skipped: " << cuda_description());
  return true;
}

Tensor table(const Dims& shape, double phase = 0.5) {
  std::vector<double> values;
  for (int64_t i = 0; i < shape.numel(); ++i) values.push_back(std::sin(static_cast<double>(i * i % 1009) + phase));
  return from_vector(values, shape, f64);
}

Tensor moved(const Tensor& x, DType dtype, Device device) {
  return (is_floating(x.dtype()) ? x.to(dtype) : x).to(device).detach();
}

// A number that every element of the outputs has a share of its own in.
Tensor scalar(const Args& outputs) {
  Tensor total;
  for (const Tensor& y : outputs) {
    if (!y.defined() || !is_floating(y.dtype())) continue;
    const Tensor part = sum(y * moved(table(y.shape(), 0.2), y.dtype(), y.device()));
    total = total.defined() ? total + part : part;
  }
  return total;
}

void note(std::vector<Tensor>& seen, const Tensor& x) {
  if (x.defined()) seen.push_back(x.detach().to(Device::cpu).to(f64).clone());
}

// What a network does in three steps: `call` with the inputs, `make` an optimizer of its parameters.
template <class Net, class Call, class Make>
std::vector<Tensor> trained(const Net& original, const Args& inputs, const Call& call, const Make& make, DType dtype,
                            Device device) {
  Net net = nn::clone(original);
  nn::to(net, dtype);
  nn::to(net, device);
  auto optimizer = make(nn::parameters(net));
  std::vector<Tensor> seen;
  manual_seed(7);
  for (int step = 0; step < 3; ++step) {
    Args given;
    for (const Tensor& x : inputs) {
      given.push_back(moved(x, dtype, device));
      if (is_floating(x.dtype())) given.back().requires_grad_();
    }
    const Args outputs = call(net, given);
    for (const Tensor& y : outputs) {
      if (y.defined()) CHECK(y.device() == device);
      note(seen, y);
    }
    for (const NamedTensor& p : nn::parameters(net)) p.tensor.set_grad({});
    scalar(outputs).backward();
    for (const Tensor& x : given) note(seen, x.grad());
    for (const NamedTensor& p : nn::parameters(net)) note(seen, p.tensor.grad());
    optimizer.step();
    for (const NamedTensor& p : nn::state_dict(net)) note(seen, p.tensor);
  }
  return seen;
}

void check_alike(const std::vector<Tensor>& expected, const std::vector<Tensor>& given, double tolerance) {
  REQUIRE(expected.size() == given.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(i);
    REQUIRE(expected[i].shape() == given[i].shape());
    if (expected[i].numel() == 0) continue;
    const double scale = 1 + max(abs(expected[i])).item<double>();
    CHECK(max(abs(expected[i] - given[i])).item<double>() <= tolerance * scale);
  }
}

auto sgd() {
  return [](std::vector<NamedTensor> parameters) {
    if (parameters.empty()) parameters.push_back({"none", zeros({1}).requires_grad_()});
    return optim::SGD(std::move(parameters), {.lr = 0.1, .momentum = 0.9});
  };
}

template <class Net, class Call, class Make>
void compare(const std::string& name, const Net& net, const Args& inputs, const Call& call, const Make& make) {
  CAPTURE(name);
  for (const auto& [dtype, tolerance] : {std::pair(f64, 1e-11), std::pair(f32, 2e-5)})
    check_alike(trained(net, inputs, call, make, dtype, Device::cpu),
                trained(net, inputs, call, make, dtype, Device::cuda), tolerance);
}

template <class Net, class Call>
void layer(const std::string& name, const Net& net, const Args& inputs, const Call& call) {
  compare(name, net, inputs, call, sgd());
}
template <class Net>
void layer(const std::string& name, const Net& net, const Tensor& input) {
  layer(name, net, {input}, [](const Net& n, const Args& x) { return Args{n(x[0])}; });
}

Args tensors(const nn::RecurrentOutput& y) { return {y.output, y.h_n}; }
Args tensors(const nn::LstmOutput& y) { return {y.output, y.h_n, y.c_n}; }

}  // namespace

TEST_CASE("on a GPU as on the CPU: affine layers, convolutions, pools, embeddings, dropout") {
  if (skipped()) return;
  manual_seed(1);
  const Tensor rows = table({3, 4}), line = table({2, 3, 9}), image = table({2, 4, 7, 6});
  layer("linear", nn::Linear(4, 3), rows);
  layer("bilinear", nn::Bilinear(3, 4, 2), {table({5, 3}), table({5, 4})},
        [](const auto& n, const Args& x) { return Args{n(x[0], x[1])}; });
  layer("conv1d", nn::Conv1d(3, 4, 3, {.stride = 2, .padding = 1}), line);
  layer("conv2d", nn::Conv2d(4, 6, {3, 2}, {.stride = {2, 1}, .padding = {1, 0}, .groups = 2}), image);
  layer("conv2d same", nn::Conv2d(4, 3, {3, 4}, {.padding = "same", .bias = false}), image);
  layer("conv_transpose2d", nn::ConvTranspose2d(4, 6, 3, {.stride = 2, .padding = 1, .output_padding = 1, .groups = 2}),
        image);
  layer("max_pool1d", nn::MaxPool1d{2}, line);
  layer("max_pool2d", nn::MaxPool2d{3, 2, 1}, image);
  layer("avg_pool1d", nn::AvgPool1d{2}, line);
  layer("avg_pool2d", nn::AvgPool2d{.kernel_size = 2, .padding = 1, .count_include_pad = false}, image);
  layer("adaptive_avg_pool2d", nn::AdaptiveAvgPool2d{{2, 3}}, image);
  layer("embedding", nn::Embedding(5, 3, {.padding_idx = -1}), tensor({{1, 4, 0}, {2, 2, 1}}));
  layer("dropout", nn::Dropout(0.4), image);
  layer("dropout2d", nn::Dropout2d(0.4), image);
  layer("flatten, unflatten", nn::Sequential(nn::Flatten(), nn::Unflatten{1, {2, 84}}, nn::Identity()), image);
}

TEST_CASE("on a GPU as on the CPU: activations") {
  if (skipped()) return;
  manual_seed(1);
  const Tensor x = table({3, 4}) * 3.0;
  layer("relu", nn::ReLU(), x);
  layer("relu6", nn::ReLU6(), x * 3.0);
  layer("silu", nn::SiLU(), x);
  layer("mish", nn::Mish(), x);
  layer("selu", nn::SELU(), x);
  layer("tanh", nn::Tanh(), x);
  layer("tanhshrink", nn::Tanhshrink(), x);
  layer("sigmoid", nn::Sigmoid(), x);
  layer("logsigmoid", nn::LogSigmoid(), x);
  layer("softsign", nn::Softsign(), x);
  layer("hardswish", nn::Hardswish(), x);
  layer("hardsigmoid", nn::Hardsigmoid(), x);
  layer("gelu", nn::GELU(), x);
  layer("gelu tanh", nn::GELU{"tanh"}, x);
  layer("leaky_relu", nn::LeakyReLU(), x);
  layer("elu", nn::ELU(), x);
  layer("celu", nn::CELU{0.7}, x);
  layer("softplus", nn::Softplus(), x);
  layer("softshrink", nn::Softshrink(), x);
  layer("hardshrink", nn::Hardshrink(), x);
  layer("hardtanh", nn::Hardtanh(), x);
  layer("threshold", nn::Threshold{0.1, -2}, x);
  layer("softmax", nn::Softmax{1}, x);
  layer("softmin", nn::Softmin{0}, x);
  layer("log_softmax", nn::LogSoftmax{1}, x);
  layer("glu", nn::GLU(), x);
  layer("prelu", nn::PReLU(4), x);
}

TEST_CASE("on a GPU as on the CPU: norms") {
  if (skipped()) return;
  manual_seed(1);
  const Tensor rows = table({5, 4}), image = table({2, 4, 3, 5});
  layer("batch_norm1d", nn::BatchNorm1d(4), rows);
  layer("batch_norm2d", nn::BatchNorm2d(4, {.momentum = std::nullopt}), image);
  nn::BatchNorm1d fixed(4);
  nn::eval(fixed);
  layer("batch_norm, not training", fixed, rows);
  layer("layer_norm", nn::LayerNorm(Dims{3, 5}), image);
  layer("rms_norm", nn::RMSNorm(4, {.eps = 1e-6}), rows);
  layer("group_norm", nn::GroupNorm(2, 4), image);
}

TEST_CASE("on a GPU as on the CPU: attention and recurrent networks") {
  if (skipped()) return;
  manual_seed(1);
  const Tensor x = table({2, 3, 6});
  const auto fast = [](const auto& n, const Args& a) {
    return Args{n(a[0], a[0], a[0], {.need_weights = false}).first};
  };
  layer("attention", nn::MultiheadAttention(6, 2), {x}, fast);
  layer("attention, weights", nn::MultiheadAttention(6, 3, {.batch_first = true}), {x},
        [](const auto& n, const Args& a) {
          const auto [y, weights] = n(a[0], a[0], a[0], {.attn_mask = triu(ones({3, 3}, {boolean, a[0].device()}), 1)});
          return Args{y, weights};
        });
  layer(
      "attention, causal", nn::MultiheadAttention(6, 2, {.dropout = 0.3, .batch_first = true}), {x},
      [](const auto& n, const Args& a) {
        return Args{
            n(a[0], a[0], a[0],
              {.need_weights = false, .attn_mask = triu(ones({3, 3}, {boolean, a[0].device()}), 1), .is_causal = true})
                .first};
      });
  const auto run = [](const auto& n, const Args& a) { return tensors(n(a[0])); };
  const Tensor sequence = table({4, 2, 3});
  layer("rnn", nn::RNN(3, 4), {sequence}, run);
  layer("rnn relu", nn::RNN(3, 4, {.nonlinearity = "relu", .batch_first = true, .bidirectional = true}), {sequence},
        run);
  layer("gru", nn::GRU(3, 4, {.num_layers = 2, .dropout = 0.3, .bidirectional = true}), {sequence}, run);
  layer("lstm", nn::LSTM(3, 4, {.num_layers = 2, .bidirectional = true}), {sequence}, run);
}

TEST_CASE("on a GPU as on the CPU: losses") {
  if (skipped()) return;
  const Tensor x = table({4, 5}), y = table({4, 5}, 1.5), classes = tensor({1, 4, 0, 3}),
               weight = abs(table({5})) + 0.5;
  const auto loss = [&]<class Loss>(const std::string& name, const Loss& l, const Args& inputs) {
    layer(name, l, inputs, [](const Loss& f, const Args& a) { return Args{f(a[0], a[1])}; });
  };
  const auto weighted = [&]<class Loss>(const std::string& name, const Loss& l, const Args& inputs) {
    layer(name, l, inputs, [](Loss f, const Args& a) {
      f.weight = a[2].detach();
      return Args{f(a[0], a[1])};
    });
  };
  for (const Reduction reduction : {Reduction::mean, Reduction::sum, Reduction::none}) {
    weighted("cross_entropy", nn::CrossEntropyLoss{.reduction = reduction, .label_smoothing = 0.1},
             {x, classes, weight});
    weighted("nll", nn::NLLLoss{.reduction = reduction}, {x, classes, weight});
    loss("mse", nn::MSELoss{reduction}, {x, y});
    loss("l1", nn::L1Loss{reduction}, {x, y});
    loss("smooth_l1", nn::SmoothL1Loss{reduction, 0.5}, {x, y});
    loss("huber", nn::HuberLoss{reduction, 0.7}, {x, y});
    weighted("bce", nn::BCELoss{.reduction = reduction}, {sigmoid(x), sigmoid(y), weight});
    weighted("bce with logits", nn::BCEWithLogitsLoss{.reduction = reduction}, {x, sigmoid(y), weight});
  }
  loss("cross_entropy, shares", nn::CrossEntropyLoss(), {x, y.softmax(1)});
  loss("cross_entropy, left out", nn::CrossEntropyLoss{.ignore_index = 4}, {x, classes});
  loss("kl_div", nn::KLDivLoss(), {x, y.softmax(1)});
}

TEST_CASE("on a GPU as on the CPU: optimizers") {
  if (skipped()) return;
  manual_seed(1);
  const nn::Sequential net(nn::Linear(4, 5), nn::Tanh(), nn::Linear(5, 2));
  const auto optimizer = [&](const std::string& name, const auto& make) {
    compare(
        name, net, {table({3, 4})}, [](const auto& n, const Args& x) { return Args{n(x[0])}; }, make);
  };
  using Named = std::vector<NamedTensor>;
  optimizer("sgd", [](Named p) { return optim::SGD(std::move(p), {.lr = 0.1}); });
  optimizer("sgd, nesterov", [](Named p) {
    return optim::SGD(std::move(p), {.lr = 0.1, .momentum = 0.9, .weight_decay = 0.1, .nesterov = true});
  });
  optimizer("adam",
            [](Named p) { return optim::Adam(std::move(p), {.lr = 0.01, .weight_decay = 0.1, .amsgrad = true}); });
  optimizer("adamw", [](Named p) { return optim::AdamW(std::move(p), {.lr = 0.01, .maximize = true}); });
  optimizer("adagrad", [](Named p) { return optim::Adagrad(std::move(p), {.lr = 0.01, .lr_decay = 0.1}); });
  optimizer("rmsprop",
            [](Named p) { return optim::RMSprop(std::move(p), {.lr = 0.01, .momentum = 0.5, .centered = true}); });
}

TEST_CASE("on a GPU as on the CPU: an optimizer's state follows its parameters to the device and back") {
  if (skipped()) return;
  manual_seed(1);
  const nn::Linear start(4, 2);
  const Tensor x = table({3, 4}).to(f32);
  const auto run = [&](const std::vector<Device>& devices) {
    nn::Linear net = nn::clone(start);
    optim::AdamW adamw(nn::parameters(net), {.lr = 0.05});
    for (const Device device : devices) {
      nn::to(net, device);
      adamw.zero_grad();
      scalar({net(x.to(device))}).backward();
      adamw.step();
    }
    std::vector<Tensor> out;
    for (const auto& [name, value] : adamw.state_dict()) note(out, value);
    for (const NamedTensor& p : nn::parameters(net)) note(out, p.tensor);
    return out;
  };
  check_alike(run({Device::cpu, Device::cpu, Device::cpu, Device::cpu}),
              run({Device::cpu, Device::cuda, Device::cuda, Device::cpu}), 1e-6);
}
