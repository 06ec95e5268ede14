// SPDX-License-Identifier: Apache-2.0
// What golden_training_test.cpp does not see: groups, state, messages, pieces.
#include <cmath>
#include <limits>

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
    Tensor l = (p * p).sum();
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

TEST_CASE("a tensor that the options do not ask for at the moment is saved, as PyTorch does") {
  const auto train = [](bool resume) {
    const Tensor x = ones({4}).requires_grad_();
    optim::SGD sgd(std::vector<NamedTensor>{{"x", x}}, {.lr = 0.1, .momentum = 0.9});
    const auto step = [&](double momentum) {
      sgd.param_groups()[0].options["momentum"] = momentum;
      x.set_grad(ones({4}));
      sgd.step();
    };
    for (const double momentum : {0.9, 0.9, 0.9, 0.0}) step(momentum);
    if (resume) {
      optim::State saved;
      for (const auto& [name, value] : sgd.state_dict()) saved[name] = value.clone();
      sgd.load_state_dict(saved);
    }
    step(0.9);
    return x[0].item<double>();
  };
  CHECK(train(false) == doctest::Approx(-0.0049));  // PyTorch's
  CHECK(train(true) == train(false));
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
  CHECK(error_of([&] { adam.load_state_dict(state); }) ==
        "Adam::load_state_dict: invalid values: groups.0: Adam: invalid learning rate: -5");
  CHECK(adam.param_groups()[0].lr() == 1e-3);
}

namespace {

struct TwoGroups {
  Parameter p = parameter(ones({2}), 1), q = parameter(ones({3}), 1);
  Adam adam{std::vector<Group>{{{{"p", p}}, {}}, {{{"q", q}}, {{"lr", 0.5}}}}, {.lr = 0.1}};
};

// What adam says of a state that `spoil` has changed; checks that it took nothing of it.
template <class F>
std::string refusal(Adam& adam, const F& spoil) {
  State state = adam.state_dict();
  const auto before = state;
  state["groups.0.lr"] = full({}, 5, f64);
  spoil(state);
  std::string text = error_of([&] { adam.load_state_dict(state); });
  CHECK(error_of([&] { adam.check_state_dict(state); }) == text);
  const State after = adam.state_dict();
  REQUIRE(after.size() == before.size());
  for (const auto& [key, value] : before) CHECK_MESSAGE(equal(after.at(key), value), key);
  return text;
}

void rename(State& state, const std::string& from, const std::string& to) {
  auto entry = state.extract(from);
  REQUIRE(!entry.empty());
  entry.key() = to;
  state.insert(std::move(entry));
}

}  // namespace

TEST_CASE("options of groups: each that is missing, unexpected or mis-shaped is named, and nothing changes") {
  TwoGroups two;
  const ExponentialLR schedule(two.adam, 0.5);  // notes initial_lr
  two.adam.step();
  const auto said = [&](const auto& spoil) { return refusal(two.adam, spoil); };
  CHECK(said([](State& s) { rename(s, "groups.0.initial_lr", "groups.0.initial_lrx"); }) ==
        "Adam::load_state_dict: missing keys: groups.0.initial_lr; unexpected keys: groups.0.initial_lrx");
  CHECK(said([](State& s) { rename(s, "groups.0.initial_lr", "groups.0.max_lr"); }) ==
        "Adam::load_state_dict: missing keys: groups.0.initial_lr, groups.0.min_lr");
  CHECK(said([](State& s) { rename(s, "groups.0.amsgrad", "groups.0.amsgradx"); }) ==
        "Adam::load_state_dict: missing keys: groups.0.amsgrad; unexpected keys: groups.0.amsgradx");
  CHECK(said([](State& s) { s["groups.1.lr"] = ones({2}); }) ==
        "Adam::load_state_dict: shapes differ: groups.1.lr is [] here and [2] in the values");
  CHECK(said([](State& s) { s["groups.1.initial_lr"] = ones({1}); }) ==
        "Adam::load_state_dict: shapes differ: groups.1.initial_lr is [] here and [1] in the values");
  CHECK(said([](State& s) {
          rename(s, "groups.0.amsgrad", "groups.0.");
          rename(s, "step.q", "step.r");
          s["groups.1.eps"] = ones({0});
          s["groups.1.max_lr"] = ones({2, 1});
          s["exp_avg.p"] = ones({3});
        }) ==
        "Adam::load_state_dict: missing keys: groups.0.amsgrad, groups.1.min_lr, step.q; unexpected keys: groups.0., "
        "step.r; shapes "
        "differ: exp_avg.p is [2] here and [3] in the values, groups.1.eps is [] here and [0] in the values, "
        "groups.1.max_lr is [] here and [2, 1] in the values");
}

TEST_CASE("options of schedulers: none is taken or left out alone") {
  const char* const noted[] = {"base_momentum", "initial_lr", "max_lr", "max_momentum", "min_lr"};
  TwoGroups scheduled;
  const OneCycleLR schedule(scheduled.adam, 0.3, {.total_steps = 9});
  for (const std::string option : noted) {
    const auto erase = [&](State& s) { s.erase("groups.1." + option); };
    CHECK(refusal(scheduled.adam, erase) == "Adam::load_state_dict: missing keys: groups.1." + option);
    // Nor where the scheduler is made later.
    TwoGroups bare;
    State values = scheduled.adam.state_dict();
    erase(values);
    CHECK(error_of([&] { bare.adam.load_state_dict(values); }) ==
          "Adam::load_state_dict: missing keys: groups.1." + option);
  }
  for (const auto& [alone, missing] :
       {std::pair("base_momentum", "initial_lr, max_lr, max_momentum, min_lr"),
        std::pair("max_momentum", "base_momentum, initial_lr, max_lr, min_lr"),
        std::pair("min_lr", "initial_lr, max_lr"), std::pair("max_lr", "initial_lr, min_lr")}) {
    TwoGroups bare;
    std::string text = str("Adam::load_state_dict: missing keys: groups.0.", missing);
    for (size_t at = 0; (at = text.find(", ", at)) != std::string::npos; ++at) text.insert(at + 2, "groups.0.");
    CHECK(refusal(bare.adam, [&](State& s) { s[str("groups.0.", alone)] = full({}, 1, f64); }) == text);
  }
}

TEST_CASE("numbers that cannot be are named with their values, and nothing changes") {
  TwoGroups two;
  const OneCycleLR schedule(two.adam, 0.3, {.total_steps = 9});
  two.adam.step();
  const auto said = [&](const std::string& key, const Tensor& value) {
    return refusal(two.adam, [&](State& s) { s[key] = value; });
  };
  const std::string refused = "Adam::load_state_dict: invalid values: ";
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  for (const char* const option : {"base_momentum", "initial_lr", "max_lr", "max_momentum", "min_lr", "lr", "beta1",
                                   "eps", "weight_decay", "amsgrad", "maximize"}) {
    const std::string key = str("groups.1.", option);
    CHECK(said(key, full({}, nan, f64)) == refused + key + " is nan");
    CHECK(said(key, full({}, inf, f64)) == refused + key + " is inf");
    CHECK(said(key, full({}, -inf, f32)) == refused + key + " is -inf");
  }
  for (const char* const option : {"base_momentum", "initial_lr", "max_lr", "max_momentum", "min_lr", "amsgrad"}) {
    const std::string key = str("groups.0.", option);
    CHECK(said(key, full({}, -0.5, f64)) == refused + key + " is -0.5");
  }
  CHECK(said("groups.0.maximize", full({}, 0.5, f64)) == refused + "groups.0.maximize is 0.5");
  CHECK(said("groups.0.beta2", full({}, 1, f64)) == refused + "groups.0: Adam: invalid beta parameter at index 1: 1");
  CHECK(said("step.p", full({}, -7, i64)) == refused + "step.p is -7");
  CHECK(said("rounding_step", full({}, -5, i64)) == refused + "rounding_step is -5");
  CHECK(refusal(two.adam,
                [&](State& s) {
                  s["rounding_step"] = full({}, -1, i64);
                  s["groups.0.max_lr"] = full({}, nan, f64);
                  s["groups.1.lr"] = full({}, -2, f64);
                  s["step.q"] = full({}, -3, i64);
                }) == refused +
                          "rounding_step is -1, groups.0.max_lr is nan, groups.1: Adam: invalid learning rate: -2, "
                          "step.q is -3");
}

TEST_CASE("dtypes of another kind are refused, and those of the same are converted") {
  TwoGroups two;
  two.adam.step();
  const State state = two.adam.state_dict();
  for (const DType dtype : {f64, f32, f16, bf16, i64, i32, u8, boolean}) {
    const std::string text = str(" and ", dtype, " in the values");
    const auto said = [&](const std::string& key) {
      return refusal(two.adam, [&](State& s) { s[key] = s.at(key).to(dtype); });
    };
    if (!is_floating(dtype)) {
      CHECK(said("groups.0.eps") == "Adam::load_state_dict: dtypes differ: groups.0.eps is f64 here" + text);
      CHECK(said("exp_avg.q") == "Adam::load_state_dict: dtypes differ: exp_avg.q is f32 here" + text);
    }
    if (is_floating(dtype) || dtype == boolean)
      CHECK(said("step.q") == "Adam::load_state_dict: dtypes differ: step.q is i64 here" + text);
    State values = state;
    for (auto& [key, value] : values) {
      const bool same_kind = is_floating(value.dtype()) == is_floating(dtype) && dtype != boolean;
      const bool beyond = is_half(dtype) && value.dim() == 0;  // beta2 would be 1
      if (same_kind && !beyond) value = value.to(dtype);
    }
    two.adam.load_state_dict(values);
    for (const auto& [key, value] : two.adam.state_dict()) {
      CHECK(value.dtype() == state.at(key).dtype());
      CHECK_MESSAGE(equal(value, values.at(key).to(value.dtype())), key);
    }
  }
  CHECK(refusal(two.adam,
                [](State& s) {
                  s["groups.1.lr"] = full({}, 1, i64);
                  s["exp_avg.p"] = ones({3}, i32);
                  s["step.p"] = full({}, 2.5, f64);
                }) ==
        "Adam::load_state_dict: shapes differ: exp_avg.p is [2] here and [3] in the values; dtypes differ: step.p is "
        "i64 here and f64 in the values, exp_avg.p is f32 here and i32 in the values, groups.1.lr is f64 here and i64 "
        "in the values");
}

TEST_CASE("another number of groups is refused, key by key") {
  TwoGroups two;
  Parameter p = parameter(ones({2}), 1), q = parameter(ones({3}), 1);
  Adam one({{"p", p}, {"q", q}}, {.lr = 0.1});
  const std::string options =
      "groups.1.amsgrad, groups.1.beta1, groups.1.beta2, groups.1.eps, groups.1.lr, groups.1.maximize, "
      "groups.1.weight_decay";
  CHECK(error_of([&] { one.load_state_dict(two.adam.state_dict()); }) ==
        "Adam::load_state_dict: unexpected keys: " + options);
  CHECK(error_of([&] { two.adam.load_state_dict(one.state_dict()); }) ==
        "Adam::load_state_dict: missing keys: " + options);
  CHECK(two.adam.param_groups()[1].lr() == 0.5);
}

TEST_CASE("what schedulers and users note in groups is loaded") {
  TwoGroups scheduled, bare;
  const OneCycleLR schedule(scheduled.adam, 0.3, {.total_steps = 9});
  bare.adam.load_state_dict(scheduled.adam.state_dict());  // its scheduler may be made later
  for (size_t g = 0; g < 2; ++g) CHECK(bare.adam.param_groups()[g].options == scheduled.adam.param_groups()[g].options);
  State noted = bare.adam.state_dict();
  noted["groups.1.mine"] = full({}, 4, f64);
  CHECK(error_of([&] { bare.adam.load_state_dict(noted); }) == "Adam::load_state_dict: unexpected keys: groups.1.mine");
  bare.adam.param_groups()[1].options["mine"] = 3;
  bare.adam.load_state_dict(noted);
  CHECK(bare.adam.param_groups()[1].option("mine") == 4);
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
