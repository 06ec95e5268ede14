// SPDX-License-Identifier: Apache-2.0
// Linear layers of 8 bits on a GPU: rounding and scaling, products against those of the rounded numbers, training, and
// what is said where they cannot be. Without a GPU the device is one that the host plays.
#include <loom/accelerators/cuda.h>
#include <loom/accelerators/float8.h>
#include <loom/autograd/autocast.h>
#include <loom/autograd/checkpoint.h>
#include <loom/autograd/engine.h>
#include <loom/autograd/fp8.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/ops.h>
#include <loom/fabric/fabric.h>
#include <loom/nn/layer_norm.h>
#include <loom/nn/linear.h>
#include <loom/nn/optim/adam.h>
#include <loom/tensor/context.h>
#include <loom/tensor/create.h>
#include <loom/tensor/device_graph.h>
#include <loom/tensor/raw.h>

#include "../error_of.h"
#include "kernel_test.h"

using namespace loom;
using testing::error_of;

namespace {

bool has_gpu() {
  const std::string lacks = device_count(Device::cuda) == 0 ? cuda_description() : fp8_obstacle(Device::cuda);
  if (!lacks.empty()) MESSAGE("skipped: " << lacks);
  return lacks.empty();
}

double largest_off(const Tensor& a, const Tensor& b) {
  return abs(a.detach().to(Device()).to(f64) - b.detach().to(Device()).to(f64)).max().item<double>();
}

struct Scaled {
  Tensor state, codes, inverse;
};

// A scaling of `length` uses that has not been used.
Tensor fresh_state(int64_t length) {
  Tensor state = zeros({3 + length}, {f32, Device::cuda});
  raw::fill_into(state.slice(0, 0, 2, 1), 1);
  return state;
}

Scaled quantize(const Tensor& x, const Tensor& state, Fp8 format, double margin, bool first, bool again = false) {
  const Tensor given = x.to(Device::cuda), codes = empty(x.shape(), {u8, Device::cuda}),
               inverse = empty({1}, {f32, Device::cuda});
  accelerator(Device::cuda).fused()->fp8_quantize(codes, inverse, given, {state, format, margin, first, again});
  return {state, codes.to(Device()), inverse.to(Device())};
}

}  // namespace

TEST_CASE("a GPU's rounding to 8 bits: codes, factors and history") {
  if (!has_gpu()) return;
  manual_seed(1);
  for (const DType t : {f32, bf16, f16, f64})
    for (const Fp8 format : {Fp8::e4m3, Fp8::e5m2})
      for (const int64_t n : {1, 15, 16, 64, 5000}) {
        CAPTURE(n);
        const Tensor x = (randn({n}) * 3).to(t);
        const float most = abs(x.to(f32)).max().item<float>(), factor = largest(format) / most / 2;
        const Scaled out = quantize(x, fresh_state(4), format, 1, true);
        CHECK(out.inverse.item<float>() == 1 / factor);
        const auto values = x.to(f32).to_vector<float>();
        const auto codes = out.codes.to_vector<uint8_t>();
        int wrong = 0;
        for (size_t i = 0; i < codes.size(); ++i) wrong += codes[i] != code_of(format, values[i] * factor);
        CHECK(wrong == 0);
      }
}

TEST_CASE("a GPU's delayed scaling looks back on as many uses as it has room for") {
  if (!has_gpu()) return;
  const Tensor state = fresh_state(3);
  const auto factor_after = [&](double magnitude) {
    quantize(full({16}, -magnitude, f32), state, Fp8::e4m3, 0, false);
    return static_cast<double>(state.to(Device())[0].item<float>());
  };
  CHECK(factor_after(0) == 1);  // nothing seen
  CHECK(factor_after(4) == 448 / 4.0);
  CHECK(factor_after(2) == 448 / 4.0);
  CHECK(factor_after(7) == 448 / 7.0);
  CHECK(factor_after(std::numeric_limits<double>::infinity()) == 448 / 7.0);  // not noted
  CHECK(factor_after(std::nan("")) == 448 / 7.0);                             // takes part as 0
  CHECK(factor_after(1) == 448 / 7.0);
  CHECK(factor_after(1) == 448.0);
  const auto before = state.to(Device()).to_vector<float>();
  const Scaled again = quantize(full({16}, 100.0, f32), state, Fp8::e4m3, 0, false, true);
  CHECK(state.to(Device()).to_vector<float>() == before);
  CHECK(again.inverse.item<float>() == 1 / before[1]);
}

namespace {

struct Layer {
  nn::Linear linear{32, 48};
  LOOM_MEMBERS(linear)
};

Tensor in_eighths(const std::shared_ptr<Fp8Layers>& layers, const std::function<Tensor()>& f) {
  const Autocast region(bf16);
  const Fp8Region eighths(layers);
  return f();
}

// x as it is after rounding, scaled by its own largest magnitude.
Tensor rounded(const Tensor& x, Fp8 format) {
  const Tensor values = x.detach().to(Device()).to(f32);
  const float factor = largest(format) / abs(values).max().item<float>();
  std::vector<float> out = values.flatten().to_vector<float>();
  for (float& v : out) v = float_of(format, code_of(format, v * factor)) / factor;
  return from_vector(out, values.shape(), f32).to(f64);
}

}  // namespace

TEST_CASE("a GPU's linear layer of 8 bits multiplies what it has rounded") {
  if (!has_gpu()) return;
  manual_seed(2);
  const auto layers = std::make_shared<Fp8Layers>();
  for (const int64_t rows : {16, 5}) {  // any number of rows
    Layer net;
    const Tensor weight = net.linear.weight.detach().clone(), bias = net.linear.bias.detach().clone();
    nn::to(net, Device(Device::cuda));
    const Tensor x = randn({rows, 32}).to(Device::cuda).requires_grad_(), g = randn({rows, 48}).to(bf16);
    const Tensor y = in_eighths(layers, [&] { return net.linear(x); });
    CHECK(y.dtype() == bf16);
    const Tensor exact_x = rounded(x, Fp8::e4m3), exact_w = rounded(weight, Fp8::e4m3), exact_g = rounded(g, Fp8::e5m2);
    CHECK(largest_off(y, matmul(exact_x, exact_w.t()) + bias.to(f64)) < 0.02);
    y.backward(g.to(Device::cuda));
    CHECK(largest_off(x.grad(), matmul(exact_g, exact_w)) < 0.02);
    CHECK(net.linear.weight.grad().dtype() == f32);
    CHECK(largest_off(net.linear.weight.grad(), matmul(exact_g.t(), exact_x)) < 0.02);
    CHECK(largest_off(net.linear.bias.grad(), sum(g.to(f64), {0})) < 0.1);
  }
}

TEST_CASE("a GPU's linear layer of 8 bits adds to gradients, wherever they lie") {
  if (!has_gpu()) return;
  manual_seed(6);
  for (const int64_t from : {0, 1}) {  // on a 16-byte boundary, and not
    const auto layers = std::make_shared<Fp8Layers>();
    Parameter weight(randn({16, 32}).to(Device::cuda));
    const Tensor bucket = zeros({16 * 32 + 1}, {f32, Device::cuda}), x = randn({16, 32}).to(Device::cuda);
    set_grad_buffer(weight, raw::reshape(raw::slice(bucket, 0, from, from + 16 * 32, 1), {16, 32}));
    const auto run = [&] { in_eighths(layers, [&] { return sum(linear(x, weight)); }).backward(); };
    run();
    const Tensor first = weight.grad().to(Device()).clone();
    CHECK(largest_off(bucket[from], first[0][0]) == 0);
    run();
    CHECK(largest_off(weight.grad(), first * 2.0) < 1e-4);
  }
}

TEST_CASE("a GPU's linear layers of 8 bits: which they are") {
  if (!has_gpu()) return;
  manual_seed(3);
  const auto layers = std::make_shared<Fp8Layers>();
  const Tensor x = randn({4, 32}).to(Device::cuda);
  Parameter direct(randn({16, 32}).to(Device::cuda)), turned(randn({32, 16}).to(Device::cuda)),
      odd(randn({10, 32}).to(Device::cuda));
  const Tensor computed = randn({16, 32}).to(Device::cuda) * 2.0;
  in_eighths(layers, [&] { return linear(x, odd); });
  CHECK(layers->state_dict().empty());
  in_eighths(layers, [&] { return linear(x, computed); });
  CHECK(layers->state_dict().empty());
  for (int i = 0; i < 2; ++i) in_eighths(layers, [&] { return linear(x, direct) + linear(x, turned.t()); });
  CHECK(layers->state_dict().size() == 4);  // input and weight of both, numbers 1 and 2
  CHECK(layers->state_dict().contains("1.input"));
  CHECK(layers->state_dict().contains("2.weight"));
}

TEST_CASE("a GPU's linear layers of 8 bits: evaluation notes nothing, a recomputed forward gives the same bits") {
  if (!has_gpu()) return;
  manual_seed(4);
  const auto layers = std::make_shared<Fp8Layers>();
  Layer net;
  nn::to(net, Device(Device::cuda));
  const Tensor x = randn({16, 32}).to(Device::cuda).requires_grad_();
  const auto run = [&](bool again) {
    net.linear.weight.set_grad(Tensor());
    const Tensor loss = in_eighths(layers, [&] { return sum(again ? checkpoint(net.linear, x) : net.linear(x)); });
    loss.backward();
    return net.linear.weight.grad().to(Device());
  };
  run(false);  // scales settle: nothing changes from here on
  const Tensor plain = run(false), recomputed = run(true);
  CHECK(largest_off(plain, recomputed) == 0);
  const auto before = layers->state_dict().at("0.input").to(Device()).to_vector<float>();
  {
    const NoGrad off;
    in_eighths(layers, [&] { return net.linear(x * 100.0); });
  }
  CHECK(layers->state_dict().at("0.input").to(Device()).to_vector<float>() == before);
}

namespace {

// A block as GPT has them, without attention.
struct Block {
  nn::LayerNorm norm{32};
  nn::Linear up{32, 64}, down{64, 32}, head{32, 16};
  Tensor operator()(const Tensor& x) const {
    return head(x + gelu_mlp(norm(x), up.weight, up.bias, down.weight, down.bias));
  }
  LOOM_MEMBERS(norm, up, down, head)
};

// Losses of a few steps in a precision; after `stop` steps everything goes through a checkpoint's tensors.
std::vector<double> train(const std::string& precision, int steps, int stop = -1) {
  std::vector<double> losses;
  Fabric fabric({.accelerator = "cuda", .precision = precision});
  fabric.launch([&] {
    manual_seed(5);
    Block net;
    optim::AdamW adamw(nn::parameters(net), {.lr = 3e-3});
    auto [model, optimizer] = fabric.setup(net, adamw);
    const Tensor x = randn({64, 32}), y = loom::argmax(matmul(x, randn({32, 16})), 1);
    const Tensor inputs = fabric.to_device(x), targets = fabric.to_device(y);
    for (int i = 0; i < steps; ++i) {
      if (i == stop) {
        const StateDict kept = fabric.precision().state_dict();
        CHECK(kept.tensors.size() == 9);
        StateDict copy;
        for (const auto& [name, t] : kept.tensors) copy.tensors[name] = t.to(Device()).clone();
        for (const auto& [name, t] : kept.tensors) raw::fill_into(t, 1);
        fabric.precision().load_state_dict(copy);
      }
      optimizer.zero_grad();
      const Tensor loss = cross_entropy(model(inputs), targets);
      fabric.backward(loss);
      optimizer.step();
      losses.push_back(loss.item<double>());
    }
  });
  return losses;
}

}  // namespace

TEST_CASE("a GPU's training in fp8-mixed converges as in bf16-mixed") {
  if (!has_gpu()) return;
  const auto bf16_losses = train("bf16-mixed", 60), fp8_losses = train("fp8-mixed", 60);
  CHECK(bf16_losses.back() < 0.5 * bf16_losses.front());
  CHECK(std::fabs(fp8_losses.front() - bf16_losses.front()) < 0.1);
  CHECK(std::fabs(fp8_losses.back() - bf16_losses.back()) < 0.15 * bf16_losses.front());
}

TEST_CASE("a GPU's training in fp8-mixed goes on from its state bit for bit") {
  if (!has_gpu()) return;
  CHECK(train("fp8-mixed", 8, 4) == train("fp8-mixed", 8));
}

TEST_CASE("a GPU's linear layers of 8 bits: errors") {
  if (!has_gpu()) return;
  const auto layers = std::make_shared<Fp8Layers>(Fp8Options{.history = 8});
  CHECK(error_of([] { Fp8Layers({.history = 0}); }) == "Fp8Options: history is 0, expected at least 1");
  CHECK(error_of([&] {
          layers->load_state_dict({{"0.input", zeros({5})}});
        }) ==
        "fp8-mixed: the scaling '0.input' is f32 of shape [5], expected f32 of shape [11] (the same history as when it "
        "was saved)");
  Parameter weight(randn({16, 32}).to(Device::cuda));
  const Tensor x = randn({16, 32}).to(Device::cuda).requires_grad_();
  const Tensor y = in_eighths(layers, [&] { return linear(x, weight); });
  CHECK(error_of([&] { grad(sum(y), {x}, {}, {.create_graph = true}); }) ==
        "linear: products of 8 bits have no second derivatives; use 'bf16-mixed' for them");
  const auto fresh = std::make_shared<Fp8Layers>(Fp8Options{.history = 8});
  const auto forward = [&] { return in_eighths(fresh, [&] { return linear(x, weight); }); };
  DeviceGraph graph(Device::cuda);
  for (int i = 0; i < 2; ++i)
    CHECK(
        error_of([&] { graph.capture([&] { (void)forward(); }); }) ==
        "fp8-mixed: a layer is used for the first time in a step that is captured; do a training step as it is before "
        "(DeviceGraph's warm_up)");
  CHECK(equal(forward(), y));  // which is the step that is asked for
}

TEST_CASE("scalings of ranks become one: the largest magnitudes of all, and the factors that follow") {
  if (!has_gpu()) return;
  manual_seed(6);
  const Parameter first(randn({32, 16}).to(Device::cuda)), second(randn({16, 32}).to(Device::cuda));
  const auto ranks = std::array{std::make_shared<Fp8Layers>(Fp8Options{.history = 3, .margin = 1}),
                                std::make_shared<Fp8Layers>(Fp8Options{.history = 3, .margin = 1})};
  std::vector<Tensor> own[2];
  for (int rank = 0; rank < 2; ++rank)
    for (int use = 0; use < 2; ++use) {
      const Tensor x = (randn({16, 16}) * (rank == use ? 1.0 : 8.0)).to(Device::cuda);
      const auto loss = [&] { return sum(square(linear(linear(x, first), second))); };
      in_eighths(ranks[static_cast<size_t>(rank)], loss).backward();
    }
  const auto states = [&](int rank) {
    std::map<std::string, Tensor> out;
    for (const auto& [name, x] : ranks[static_cast<size_t>(rank)]->state_dict()) out[name] = x.to(Device()).clone();
    return out;
  };
  const auto before = std::array{states(0), states(1)};
  for (int rank = 0; rank < 2; ++rank)
    ranks[static_cast<size_t>(rank)]->merge([&](const Tensor& x) { own[rank].push_back(x.clone()); });
  CHECK(own[0].size() == 1);
  for (const auto& [name, x] : states(0)) CHECK(equal(x, before[0].at(name)));  // alone: as it was
  for (int rank = 0; rank < 2; ++rank)
    ranks[static_cast<size_t>(rank)]->merge([&](const Tensor& x) { x.copy_(maximum(own[0][0], own[1][0])); });
  CHECK(before[0].size() == 6);
  for (const auto& [name, x] : states(0)) {
    CAPTURE(name);
    CHECK(equal(x, states(1).at(name)));
    const auto a = before[0].at(name).to_vector<float>(), b = before[1].at(name).to_vector<float>(),
               now = x.to_vector<float>();
    for (size_t i = 2; i < now.size(); ++i) CHECK(now[i] == std::max(a[i], b[i]));
    CHECK(now[1] == std::min(a[1], b[1]));
    const float most = largest(name.ends_with("gradient") ? Fp8::e5m2 : Fp8::e4m3) / 2;
    CHECK(now[0] == most / std::max({now[3], now[4], now[5]}));
  }
}
