// SPDX-License-Identifier: Apache-2.0
#include <loom/autograd/checkpoint.h>
#include <loom/autograd/engine.h>
#include <loom/autograd/ops.h>
#include <loom/nn/nn.h>

#include "tensor_test.h"

namespace {

using namespace loom;
using tensor_test::error_of;
using tensor_test::show;
using Values = std::map<std::string, Tensor>;

// One step of gradient descent on a support set, as values for functional_call.
template <class Net>
Values adapted(const Net& net, const Tensor& x, const Tensor& y, double lr) {
  std::vector<Tensor> leaves;
  for (const auto& [name, p] : nn::parameters(net)) leaves.push_back(p);
  const Tensor loss[] = {mse_loss(net(x), y)};
  const auto grads = grad(loss, leaves, {}, {.create_graph = true});
  Values values;
  size_t i = 0;
  for (const auto& [name, p] : nn::parameters(net)) values[name] = p - grads[i++] * lr;
  return values;
}

// Calls functional_call itself, and throws inside one.
struct Outer {
  const nn::Linear &a, &b;
  Tensor operator()(const Tensor& x) const {
    const Tensor inner = nn::functional_call(b, {{"weight", full({1, 1}, 10)}}, x) + a(x);  // a stays replaced
    try {
      nn::functional_call(a, {{"weight", ones({3, 3})}}, x);
    } catch (const Error&) {
    }
    return inner * 100.0 + a(x);
  }
  template <class Visitor>
  void members(Visitor&& visitor) const {
    visitor("a", a);
  }
};

struct Tied {
  nn::Linear first{2, 2, {.bias = false}}, second{2, 2, {.bias = false}};
  Tied() { nn::tie(first.weight, second.weight); }
  Tensor operator()(const Tensor& x) const { return second(first(x)); }
  LOOM_MEMBERS(first, second)
};

struct Region {
  const nn::Linear& net;
  bool saving;
  Tensor operator()(const Tensor& t) const {
    const auto f = [this](const Tensor& u) { return tanh(net(sin(u))); };
    return saving ? checkpoint(f, t) : f(t);
  }
  template <class Visitor>
  void members(Visitor&& visitor) const {
    visitor("net", net);
  }
};

}  // namespace

TEST_CASE("a module runs with other values, and is itself again afterwards") {
  const nn::Linear net(2, 1);
  const Tensor x = tensor({{1.0, 2.0}});
  const std::string before = show(net(x));
  CHECK(show(nn::functional_call(net, {{"weight", tensor({{3.0, 4.0}})}, {"bias", tensor({1.0})}}, x)) ==
        "f32[1, 1] 12");
  CHECK(show(net(x)) == before);
  const Tensor value = ones({1, 2}).requires_grad_();
  nn::functional_call(net, {{"weight", value}}, x).sum().backward();
  CHECK(show(value.grad()) == "f32[1, 2] 1 2");
  CHECK(!net.weight.grad().defined());
  CHECK(show(net.bias.grad()) == "f32[1] 1");
}

TEST_CASE("nested calls restore the outer values, also when they throw") {
  const nn::Linear a(1, 1, {.bias = false}), b(1, 1, {.bias = false});
  const Tensor x = ones({1, 1});
  const Outer outer{a, b};
  CHECK(nn::functional_call(outer, {{"a.weight", full({1, 1}, 2)}}, x).item<double>() == 1202);
  CHECK(context().parameter_values == nullptr);
}

TEST_CASE("unknown names are errors") {
  const nn::Linear net(2, 1);
  CHECK(error_of([&] {
          nn::functional_call(net, {{"wieght", ones({1, 2})}}, ones({1, 2}));
        }) == "functional_call: no parameter or buffer is called 'wieght'; there are weight, bias");
  CHECK(error_of([] {
          nn::Linear plain(2, 2, {.bias = false});
          nn::functional_call(plain, {{"bias", ones({2})}}, ones({1, 2}));
        }) == "functional_call: no parameter or buffer is called 'bias'; there are weight");
  CHECK(error_of([&] {
          nn::functional_call(net, {{"weight", Tensor()}}, ones({1, 2}));
        }) == "functional_call: the value of 'weight' is undefined");
}

TEST_CASE("one name replaces a tied parameter everywhere") {
  const Tied net;
  CHECK(show(nn::functional_call(net, {{"first.weight", eye(2) * 3.0}}, ones({1, 2}))) == "f32[1, 2] 9 9");
}

TEST_CASE("buffers can be replaced") {
  nn::BatchNorm1d net(1);
  nn::eval(net);
  const Tensor y = nn::functional_call(net, {{"running_mean", tensor({5.0})}, {"running_var", tensor({4.0})}},
                                       tensor({{7.0}, {9.0}}));
  CHECK(y[0].item<double>() == doctest::Approx(1).epsilon(1e-5));
  CHECK(show(net.running_mean) == "f32[1] 0");
}

TEST_CASE("MAML: the gradient of an adapted model is that of finite differences") {
  nn::Sequential net(nn::Linear(3, 4, {.dtype = f64}), nn::Tanh(), nn::Linear(4, 2, {.dtype = f64}));
  const Tensor x = randn({5, 3}, f64), y = randn({5, 2}, f64), x2 = randn({4, 3}, f64), y2 = randn({4, 2}, f64);
  const auto loss = [&] { return mse_loss(nn::functional_call(net, adapted(net, x, y, 0.1), x2), y2); };
  loss().backward();
  for (const auto& [name, p] : nn::parameters(net)) {
    CAPTURE(name);
    const Tensor flat = p.detach().flatten();
    for (int64_t i = 0; i < flat.numel(); ++i) {
      const double eps = 1e-5, value = flat[i].item<double>();
      flat[i].fill_(value + eps);
      const double above = loss().item<double>();
      flat[i].fill_(value - eps);
      const double below = loss().item<double>();
      flat[i].fill_(value);
      CHECK(p.grad().flatten()[i].item<double>() == doctest::Approx((above - below) / (2 * eps)).epsilon(1e-5));
    }
  }
}

TEST_CASE("a checkpointed region is recomputed with the values of its call") {
  const nn::Linear net(3, 3);
  const Tensor x = randn({2, 3}), value = randn({3, 3}).requires_grad_();
  std::string gradients[2];
  for (const bool saving : {false, true}) {
    const Region region{net, saving};
    const Tensor y = nn::functional_call(region, {{"net.weight", value}}, x);
    gradients[saving] = show(grad(y.sum(), value));
  }
  CHECK(gradients[0] == gradients[1]);
}
