// SPDX-License-Identifier: Apache-2.0
// What golden_training_test.cpp does not see: groups, state, messages, pieces.
#include <loom/autograd/engine.h>
#include <loom/autograd/ops.h>
#include <loom/nn/linear.h>
#include <loom/nn/optim/optim.h>

#include "tensor_test.h"

namespace {

using namespace loom;
using namespace loom::optim;
using tensor_test::error_of;
using tensor_test::show;

Parameter parameter(const Tensor& value, double grad) {
  Parameter p(value);
  p.set_grad(full_like(value, grad));
  return p;
}

}  // namespace

TEST_CASE("options are validated in PyTorch's words") {
  const Parameter p(ones({2}));
  const std::vector<NamedTensor> list = {{"p", p}};
  CHECK(error_of([&] { SGD(list, {.lr = -1}); }) == "SGD: invalid learning rate: -1");
  CHECK(error_of([&] { SGD(list, {.momentum = -0.5}); }) == "SGD: invalid momentum value: -0.5");
  CHECK(error_of([&] { SGD(list, {.nesterov = true}); }) ==
        "SGD: Nesterov momentum requires a momentum and zero dampening");
  CHECK(error_of([&] { Adam(list, {.betas = {0.9, 1.0}}); }) == "Adam: invalid beta parameter at index 1: 1");
  CHECK(error_of([&] { AdamW(list, {.eps = -1}); }) == "AdamW: invalid epsilon value: -1");
  CHECK(error_of([&] { Adagrad(list, {.lr_decay = -1}); }) == "Adagrad: invalid lr_decay value: -1");
  CHECK(error_of([&] { RMSprop(list, {.alpha = -1}); }) == "RMSprop: invalid alpha value: -1");
  CHECK(error_of([&] { SGD(std::vector<NamedTensor>{}); }) == "SGD: got an empty parameter list");
  CHECK(error_of([&] { SGD({{"y", p * 2.0}}); }) == "SGD: can't optimize a non-leaf tensor (y)");
  CHECK(error_of([&] {
          SGD({{"p", p}, {"q", p}});
        }) == "SGD: parameter q appears in more than one parameter group, or twice in one");
  CHECK(error_of([&] {
          SGD({Group{list, {{"beta1", 0.5}}}}, {});
        }) == "SGD: unknown option 'beta1' of a parameter group");
}

TEST_CASE("parameters without a gradient are skipped") {
  Parameter a = parameter(ones({2}), 1), b(ones({2}));
  Adam adam({{"a", a}, {"b", b}}, {.lr = 0.5});
  adam.step();
  CHECK(a[0].item<double>() == doctest::Approx(0.5));
  CHECK(show(b) == "f32[2] 1 1");
  const State state = adam.state_dict();
  CHECK(state.contains("exp_avg.a"));
  CHECK(!state.contains("exp_avg.b"));
  CHECK(state.at("step.a").item<int64_t>() == 1);
}

TEST_CASE("zero_grad removes gradients, or fills them in place") {
  Parameter p = parameter(ones({2}), 1);
  SGD sgd({{"p", p}});
  const Tensor grad = p.grad();
  sgd.zero_grad(false);
  CHECK(p.grad().is_same(grad));
  CHECK(show(grad) == "f32[2] 0 0");
  sgd.zero_grad();
  CHECK(!p.grad().defined());
}

TEST_CASE("a step counts as an in-place write, and is not recorded") {
  Parameter p = parameter(ones({2}), 1);
  const Tensor y = (p * p).sum();
  SGD sgd({{"p", p}}, {.lr = 0.5});
  sgd.step();
  CHECK(p.is_leaf());
  CHECK(error_of([&] { y.backward(); }).find("modified in place") != std::string::npos);
}

TEST_CASE("groups have options of their own, also later ones") {
  Parameter a = parameter(ones({1}), 1), b = parameter(ones({1}), 1), c = parameter(ones({1}), 1);
  SGD sgd({Group{{{"w", a}}, {}}, Group{{{"w", b}}, {{"lr", 0.25}}}}, {.lr = 0.5});
  sgd.add_param_group({{{"c", c}}, {{"weight_decay", 1}}});
  sgd.param_groups()[0].set_lr(0.125);
  sgd.step();
  CHECK(a.item<double>() == 0.875);
  CHECK(b.item<double>() == 0.75);
  CHECK(c.item<double>() == 0);
  CHECK(sgd.param_groups()[1].parameters[0].name == "w#2");  // state is kept by name
}

TEST_CASE("a closure computes the loss with gradients on") {
  Parameter p(full({1}, 3));
  SGD sgd({{"p", p}}, {.lr = 0.5});
  const NoGrad no_grad;
  const Tensor loss = sgd.step([&] {
    sgd.zero_grad();
    const Tensor l = (p * p).sum();
    l.backward();
    return l;
  });
  CHECK(loss.item<double>() == 9);
  CHECK(p.item<double>() == 0);
}

TEST_CASE("loading continues as if never stopped, bit for bit") {
  nn::Linear one(3, 2);
  nn::Linear two = nn::clone(one);
  const Tensor x = randn({4, 3});
  const AdamWOptions options{.lr = 0.1, .amsgrad = true};
  AdamW first(nn::parameters(one), options), second(nn::parameters(two), {.lr = 7, .amsgrad = true});
  const auto train = [&](const nn::Linear& net, Optimizer& o) {
    o.zero_grad();
    square(net(x)).sum().backward();
    o.step();
  };
  for (int i = 0; i < 3; ++i) train(one, first);
  nn::load_state(nn::state_dict(two), {{"weight", one.weight}, {"bias", one.bias}});
  second.load_state_dict(first.state_dict());
  CHECK(second.param_groups()[0].lr() == 0.1);
  for (int i = 0; i < 3; ++i) train(one, first), train(two, second);
  CHECK(show(one.weight) == show(two.weight));
  CHECK(show(one.bias) == show(two.bias));
}

TEST_CASE("what does not fit is listed, and nothing changes") {
  Parameter p = parameter(ones({2}), 1);
  Adam adam({{"p", p}});
  adam.step();
  State state = adam.state_dict();
  state.erase("exp_avg.p");
  state["exp_avg.q"] = ones({2});
  state["exp_avg_sq.p"] = ones({3});
  state["groups.0.lr"] = full({}, 5, f64);
  CHECK(
      error_of([&] { adam.load_state_dict(state); }) ==
      "Adam::load_state_dict: missing keys: exp_avg.p; unexpected keys: exp_avg.q; shapes differ: exp_avg_sq.p is [2] "
      "here and [3] in the values");
  CHECK(adam.param_groups()[0].lr() == 1e-3);
  state = adam.state_dict();
  state["groups.0.lr"] = full({}, -5, f64);
  CHECK(error_of([&] { adam.load_state_dict(state); }) == "Adam: invalid learning rate: -5");
  CHECK(adam.param_groups()[0].lr() == 1e-3);
}

TEST_CASE("the optimizer may be made before the parameters move to another dtype") {
  nn::Linear net(2, 2);
  Adam adam(nn::parameters(net), {.lr = 0.1});
  nn::to(net, f64);
  net(ones({1, 2}, f64)).sum().backward();
  adam.step();
  CHECK(adam.state_dict().at("exp_avg.weight").dtype() == f64);
  nn::to(net, bf16);
  nn::zero_grad(net);
  net(ones({1, 2}, bf16)).sum().backward();
  adam.step();
  CHECK(adam.state_dict().at("exp_avg.weight").dtype() == f32);  // the master precision of 16-bit parameters
  CHECK(net.weight.dtype() == bf16);
}

TEST_CASE("a strided parameter is stepped as well") {
  const Tensor base = ones({2, 3});
  Parameter p(base.t());
  p.set_grad(ones({3, 2}));
  SGD sgd({{"p", p}}, {.lr = 0.5});
  sgd.step();
  CHECK(show(p) == "f32[3, 2] 0.5 0.5 0.5 0.5 0.5 0.5");
  CHECK(show(base) == "f32[2, 3] 0.5 0.5 0.5 0.5 0.5 0.5");
}

TEST_CASE("pieces: a shard is stepped as that part of the whole, and its state is the shard's") {
  Parameter whole = parameter(tensor({1.0, 2.0, 3.0, 4.0}), 0.5),
            sharded = parameter(tensor({1.0, 2.0, 3.0, 4.0}), 0.5);
  Adam a({{"p", whole}}, {.lr = 0.1}), b({{"p", sharded}}, {.lr = 0.1});
  b.set_access([](const NamedTensor& p) {
    const NoGrad no_grad;
    return Piece{p.tensor.detach().narrow(0, 2, 2), p.tensor.grad().narrow(0, 2, 2)};
  });
  a.step(), b.step();
  CHECK(show(whole.detach().narrow(0, 2, 2)) == show(sharded.detach().narrow(0, 2, 2)));
  CHECK(show(sharded.detach().narrow(0, 0, 2)) == "f32[2] 1 2");
  CHECK(b.state_dict().at("exp_avg.p").shape() == Dims{2});
  b.load_state_dict(b.state_dict());
  CHECK(b.state(sharded).tensors.at("exp_avg").shape() == Dims{2});
}
