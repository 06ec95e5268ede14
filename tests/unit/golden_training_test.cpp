// SPDX-License-Identifier: Apache-2.0
// Ten steps of training, step by step as PyTorch's: optimizers with their options, and whole models.
#include <functional>

#include <loom/nn/nn.h>
#include <loom/nn/optim/optim.h>

#include "golden.h"

namespace {

using namespace loom;
using optim::Group;
using Parameters = std::vector<NamedTensor>;
using Make = std::function<std::unique_ptr<optim::Optimizer>(const Parameters&)>;

template <class O, class Options>
Make with(const Options& options) {
  return [options](const Parameters& p) { return std::make_unique<O>(p, options); };
}

const std::map<std::string, Make> optimizers = {
    {"sgd", with<optim::SGD>(optim::SgdOptions{.lr = 0.1})},
    {"sgd_momentum",
     with<optim::SGD>(optim::SgdOptions{.lr = 0.1, .momentum = 0.9, .dampening = 0.3, .weight_decay = 0.05})},
    {"sgd_nesterov", with<optim::SGD>(optim::SgdOptions{.lr = 0.1, .momentum = 0.9, .nesterov = true})},
    {"sgd_maximize",
     with<optim::SGD>(optim::SgdOptions{.lr = 0.1, .momentum = 0.9, .weight_decay = 0.05, .maximize = true})},
    {"sgd_groups",
     [](const Parameters& p) {
       const std::vector<Group> groups = {{{p[0]}, {}}, {{p[1]}, {{"lr", 0.02}, {"momentum", 0.5}}}};
       return std::make_unique<optim::SGD>(groups, optim::SgdOptions{.lr = 0.1});
     }},
    {"adam", with<optim::Adam>(optim::AdamOptions{.lr = 0.05})},
    {"adam_options", with<optim::Adam>(optim::AdamOptions{
                         .lr = 0.05, .betas = {0.8, 0.95}, .eps = 1e-3, .weight_decay = 0.1, .amsgrad = true})},
    {"adam_maximize", with<optim::Adam>(optim::AdamOptions{.lr = 0.05, .weight_decay = 0.1, .maximize = true})},
    {"adamw", with<optim::AdamW>(optim::AdamWOptions{.lr = 0.05})},
    {"adamw_options",
     with<optim::AdamW>(optim::AdamWOptions{
         .lr = 0.05, .betas = {0.8, 0.95}, .eps = 1e-3, .weight_decay = 0.3, .amsgrad = true, .maximize = true})},
    {"adagrad", with<optim::Adagrad>(optim::AdagradOptions{})},
    {"adagrad_options", with<optim::Adagrad>(optim::AdagradOptions{.lr = 0.1,
                                                                   .lr_decay = 0.1,
                                                                   .weight_decay = 0.1,
                                                                   .initial_accumulator_value = 0.2,
                                                                   .eps = 1e-4,
                                                                   .maximize = true})},
    {"rmsprop", with<optim::RMSprop>(optim::RmspropOptions{})},
    {"rmsprop_momentum",
     with<optim::RMSprop>(optim::RmspropOptions{.lr = 0.02, .alpha = 0.9, .weight_decay = 0.1, .momentum = 0.8})},
    {"rmsprop_centered", with<optim::RMSprop>(optim::RmspropOptions{
                             .lr = 0.02, .eps = 1e-4, .momentum = 0.5, .centered = true, .maximize = true})},
};

void check_steps(const std::string& name, const Make& make) {
  CAPTURE(name);
  const golden::Tensors& expected = golden::file("optimizers");
  const Parameter w(expected.at("weight").clone()), b(expected.at("bias").clone());
  const auto optimizer = make({{"w", w}, {"b", b}});
  const double sign = optimizer->param_groups()[0].option("maximize") != 0 ? -1 : 1;
  std::vector<double> trace;
  for (int step = 0; step < 10; ++step) {
    optimizer->zero_grad();
    const Tensor error = tanh(linear(expected.at("x"), w, b)) - expected.at("y");
    (mean(square(error)) * sign).backward();
    optimizer->step();
    for (const Tensor& p : {Tensor(w), Tensor(b)})
      for (const double v : p.to_vector<double>()) trace.push_back(v);
  }
  const std::vector<double> reference = expected.at(name).to_vector<double>();
  REQUIRE(trace.size() == reference.size());
  for (size_t i = 0; i < trace.size(); ++i) CHECK(std::abs(trace[i] - reference[i]) < 1e-12);
}

struct Block {
  nn::Embedding embed{7, 8};
  nn::LayerNorm norm1{8}, norm2{8};
  nn::MultiheadAttention attention{8, 2, {.batch_first = true}};
  nn::Sequential<nn::Linear, nn::GELU, nn::Linear> feed{nn::Linear(8, 16), nn::GELU(), nn::Linear(16, 8)};
  nn::Linear head{8, 3};

  Tensor operator()(const Tensor& x) const {
    Tensor h = embed(x.to(i64));
    const Tensor n = norm1(h);
    h = h + attention(n, n, n, {.need_weights = false, .is_causal = true}).first;
    return head(mean(h + feed(norm2(h)), {1}));
  }
  LOOM_MEMBERS(embed, norm1, norm2, attention, feed, head)
};

template <class Net>
void check_losses(const std::string& name, const Net& original, DType dtype, double tolerance) {
  CAPTURE(name);
  const golden::Tensors& expected = golden::file("training");
  Net net = nn::clone(original);
  nn::load_state_dict(net, golden::below(expected, name + ".state."));
  nn::to(net, dtype);
  optim::AdamW optimizer(nn::parameters(net), {.lr = 1e-2});
  const Tensor x = expected.at(name + ".x").to(dtype), y = expected.at(name + ".y");
  for (const double reference : expected.at(name + ".losses").to_vector<double>()) {
    optimizer.zero_grad();
    const Tensor loss = cross_entropy(net(x), y);
    loss.backward();
    optimizer.step();
    CHECK(std::abs(loss.item<double>() - reference) < tolerance);
  }
}

template <class Net>
void check_losses(const std::string& name, const Net& net) {
  check_losses(name, net, DType::f64, 1e-9);
  check_losses(name, net, DType::f32, 2e-4);  // Adam's first steps turn rounding of small gradients into whole steps
}

}  // namespace

TEST_CASE("optimizers step as PyTorch's, with every option") {
  for (const auto& [name, make] : optimizers) check_steps(name, make);
  CHECK(optimizers.size() + 4 == golden::cases(golden::file("optimizers")).size());
}

TEST_CASE("models train as in PyTorch") {
  check_losses("mlp", nn::Sequential(nn::Linear(6, 16), nn::Tanh(), nn::Linear(16, 16), nn::ReLU(), nn::Linear(16, 3)));
  check_losses("cnn",
               nn::Sequential(nn::Conv2d(1, 4, 3, {.padding = 1}), nn::BatchNorm2d(4), nn::ReLU(), nn::MaxPool2d{2},
                              nn::Conv2d(4, 6, 3), nn::ReLU(), nn::Flatten(), nn::Linear(24, 3)));
  check_losses("transformer", Block());
}
