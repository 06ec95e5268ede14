// SPDX-License-Identifier: Apache-2.0
// Twenty steps on a GPU are twenty steps on the CPU: the losses of small networks, and no memory that stays.
#include <cmath>
#include <utility>

#include <loom/autograd/autocast.h>
#include <loom/autograd/engine.h>
#include <loom/autograd/ops.h>
#include <loom/nn/nn.h>
#include <loom/nn/optim/optim.h>
#include <loom/tensor/context.h>
#include <loom/tensor/create.h>

#include "gpu.h"

using namespace loom;
using gpu_test::has_gpu;

namespace {

constexpr int steps = 20;

struct Mlp {
  nn::Linear first{20, 32}, second{32, 10};
  Tensor operator()(const Tensor& x) const { return second(relu(first(x))); }
  LOOM_MEMBERS(first, second)

  static Tensor inputs() { return randn({8, 20}); }
  static Tensor targets() { return randint(0, 10, {8}); }
};

struct Cnn {
  nn::Conv2d first{1, 8, 3, {.padding = 1}}, second{8, 8, 3, {.padding = 1, .bias = false}};
  nn::BatchNorm2d norm{8};
  nn::Linear last{72, 10};
  Tensor operator()(Tensor x) const {
    x = max_pool2d(relu(first(x)), 2);
    x = max_pool2d(relu(norm(second(x))), 2);
    return last(flatten(x, 1));
  }
  LOOM_MEMBERS(first, second, norm, last)

  static Tensor inputs() { return randn({4, 1, 12, 12}); }
  static Tensor targets() { return randint(0, 10, {4}); }
};

struct Gpt {
  static constexpr int64_t vocabulary = 17, width = 16, heads = 2, length = 8;
  nn::Embedding tokens{vocabulary, width}, positions{length, width};
  nn::LayerNorm before{width}, between{width}, after{width};
  nn::Linear qkv{width, 3 * width}, out{width, width}, up{width, 4 * width}, down{4 * width, width};

  Tensor attend(const Tensor& x) const {
    const auto split = [&](const Tensor& part) {
      return part.reshape({x.size(0), length, heads, width / heads}).transpose(1, 2);
    };
    const std::vector<Tensor> parts = chunk(qkv(x), 3, 2);
    const Tensor y =
        scaled_dot_product_attention(split(parts[0]), split(parts[1]), split(parts[2]), {.is_causal = true});
    return out(y.transpose(1, 2).reshape({x.size(0), length, width}));
  }
  Tensor operator()(const Tensor& index) const {
    Tensor x = tokens(index) + positions.weight;
    x = x + attend(before(x));
    x = x + down(gelu_tanh(up(between(x))));
    return linear(after(x), tokens.weight).flatten(0, 1);
  }
  LOOM_MEMBERS(tokens, positions, before, between, after, qkv, out, up, down)

  static Tensor inputs() { return randint(0, vocabulary, {3, length}); }
  static Tensor targets() { return randint(0, vocabulary, {3 * length}); }
};

// New tensors have this dtype in a scope.
class DefaultDtype {
 public:
  explicit DefaultDtype(DType dtype) : before_(std::exchange(context().default_dtype, dtype)) {}
  ~DefaultDtype() { context().default_dtype = before_; }
  DefaultDtype(const DefaultDtype&) = delete;
  DefaultDtype& operator=(const DefaultDtype&) = delete;

 private:
  DType before_;
};

template <class Net>
Tensor loss_of(const Net& net, const Tensor& x, const Tensor& y, bool mixed) {
  const auto scores = [&] { return net(x); };
  if (!mixed) return cross_entropy(scores(), y);
  const Autocast region(bf16);
  return cross_entropy(scores(), y);
}

// From the same weights and data, drawn on the CPU; mixed: under autocast to bf16.
template <class Net>
std::vector<double> losses(Device device, DType dtype, bool mixed) {
  const DefaultDtype real(dtype);
  manual_seed(7);
  Net net;
  const Tensor x = Net::inputs().to(device), y = Net::targets().to(device);
  nn::to(net, device);
  optim::AdamW adamw(nn::parameters(net), {.lr = 3e-3});
  std::vector<Tensor> taken;
  for (int step = 0; step < steps; ++step) {
    adamw.zero_grad();
    const Tensor loss = loss_of(net, x, y, mixed);
    loss.backward();
    adamw.step();
    taken.push_back(loss.detach());
  }
  std::vector<double> out;
  out.reserve(taken.size());
  for (const Tensor& loss : taken) out.push_back(loss.item<double>());
  return out;
}

struct Way {
  const char* name;
  DType dtype;
  bool mixed;
  double tolerance;  // relative; rounding grows with the steps
};
constexpr Way ways[] = {
    {"f64", DType::f64, false, 1e-9}, {"f32", DType::f32, false, 1e-3}, {"bf16", DType::f32, true, 0.05}};

template <class Net>
void check_losses() {
  if (!has_gpu()) return;
  const int64_t before = memory_stats(Device::cuda).allocated;
  for (const Way& way : ways) {
    CAPTURE(way.name);
    const auto expected = losses<Net>(Device(), way.dtype, way.mixed);
    const auto got = losses<Net>(Device::cuda, way.dtype, way.mixed);
    CHECK(expected.back() < 0.9 * expected.front());
    for (size_t i = 0; i < got.size(); ++i) {
      CAPTURE(i);
      CHECK(std::abs(got[i] - expected[i]) <= way.tolerance * expected[i]);
    }
  }
  CHECK(memory_stats(Device::cuda).allocated == before);
}

}  // namespace

TEST_CASE("twenty steps of a multilayer perceptron on a GPU and on the CPU") { check_losses<Mlp>(); }
TEST_CASE("twenty steps of a convolutional network on a GPU and on the CPU") { check_losses<Cnn>(); }
TEST_CASE("twenty steps of a transformer on a GPU and on the CPU") { check_losses<Gpt>(); }

TEST_CASE("a step leaves as much memory as the one before") {
  if (!has_gpu()) return;
  manual_seed(7);
  Mlp net;
  nn::to(net, Device(Device::cuda));
  optim::AdamW adamw(nn::parameters(net), {.lr = 1e-3});
  const Tensor x = Mlp::inputs().to(Device::cuda), y = Mlp::targets().to(Device::cuda);
  std::vector<int64_t> allocated;
  for (int step = 0; step < 4; ++step) {
    adamw.zero_grad();
    loss_of(net, x, y, false).backward();
    adamw.step();
    allocated.push_back(memory_stats(Device::cuda).allocated);
  }
  CHECK(allocated[3] == allocated[1]);
}
