// SPDX-License-Identifier: Apache-2.0
#include <set>

#include <loom/autograd/engine.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops.h>
#include <loom/nn/nn.h>

#include "tensor_test.h"

namespace {

using namespace loom;
using tensor_test::error_of;
using tensor_test::show;

struct Shared {
  std::shared_ptr<nn::Linear> part = std::make_shared<nn::Linear>(2, 2);
  LOOM_MEMBERS(part)
};

struct Net {
  nn::Linear fc1{3, 4};
  std::vector<nn::Linear> more;
  std::optional<nn::Linear> absent;
  std::unique_ptr<nn::Linear> owned = std::make_unique<nn::Linear>(2, 2, nn::LinearOptions{.bias = false});
  std::map<std::string, nn::Linear> heads;
  nn::BatchNorm1d norm{4};
  nn::Dropout drop{0.5};
  Parameter scale{ones({})};
  Buffer cache{zeros({2}), false};

  Net() {
    more.emplace_back(4, 4);
    heads.emplace("left", nn::Linear(4, 2));
  }
  LOOM_MEMBERS(fc1, more, absent, owned, heads, norm, drop, scale, cache)
};

struct Tied {
  nn::Linear first{2, 2}, second{2, 2};
  Tied() { nn::tie(first.weight, second.weight); }
  Tensor operator()(const Tensor& x) const { return second(first(x)); }
  LOOM_MEMBERS(first, second)
};

std::vector<std::string> names(const std::vector<NamedTensor>& tensors) {
  std::vector<std::string> out;
  out.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) out.push_back(name);
  return out;
}

// The leaves that a backward from y would reach.
std::set<const autograd::Meta*> reached(const Tensor& y) {
  std::set<const autograd::Meta*> leaves;
  std::set<const autograd::Node*> seen;
  std::vector<const autograd::Node*> waiting = {y.body().node.get()};
  while (!waiting.empty()) {
    const autograd::Node* const node = waiting.back();
    waiting.pop_back();
    if (!seen.insert(node).second) continue;
    for (const autograd::Edge& edge : node->inputs) {
      if (edge.leaf) leaves.insert(edge.leaf.get());
      if (edge.node) waiting.push_back(edge.node.get());
    }
  }
  return leaves;
}

// Every leaf that gets a gradient is listed, every listed one gets a gradient, and so it is for a clone.
template <class M, class Call>
void check_members(const char* name, const M& original, const Call& call) {
  CAPTURE(name);
  const M net = nn::clone(original);
  const Tensor y = call(net);
  y.sum().backward();
  std::set<const autograd::Meta*> listed;
  for (const auto& [path, p] : nn::parameters(net)) {
    CAPTURE(path);
    listed.insert(p.body().meta.get());
    CHECK(p.grad().defined());
  }
  for (const autograd::Meta* leaf : reached(y)) CHECK(listed.contains(leaf));
  for (const auto& [path, p] : nn::parameters(original)) CHECK(!p.grad().defined());
}

template <class M>
void check_members(const char* name, const M& net, const Tensor& x) {
  check_members(name, net, [&x](const M& n) { return n(x); });
}

}  // namespace

TEST_CASE("names are the members' path, PyTorch's") {
  const Net net;
  CHECK(names(nn::parameters(net)) == std::vector<std::string>{"fc1.weight", "fc1.bias", "more.0.weight", "more.0.bias",
                                                               "owned.weight", "heads.left.weight", "heads.left.bias",
                                                               "norm.weight", "norm.bias", "scale"});
  CHECK(names(nn::buffers(net)) ==
        std::vector<std::string>{"norm.running_mean", "norm.running_var", "norm.num_batches_tracked", "cache"});
  CHECK(nn::state_dict(net).size() == 13);  // without the cache
  CHECK(nn::parameter_count(net) == 16 + 20 + 4 + 10 + 8 + 1);
}

TEST_CASE("ties: one parameter, saved under both names, kept by clone") {
  const Tied net;
  CHECK(names(nn::parameters(net)) == std::vector<std::string>{"first.weight", "first.bias", "second.bias"});
  CHECK(nn::state_dict(net).size() == 4);
  const Tied copy = nn::clone(net);
  CHECK(copy.first.weight.is_same(copy.second.weight));
  CHECK(!copy.first.weight.is_same(net.first.weight));
  const Tied untied = net;  // a plain copy has values of its own
  CHECK(!untied.first.weight.is_same(untied.second.weight));
  CHECK(show(untied.second.weight) == show(net.second.weight));
}

TEST_CASE("clone refuses what a copy would share") {
  CHECK(error_of([] { nn::clone(Shared()); }) ==
        "clone: 'part.weight' is behind a shared_ptr, which a copy of the module shares; hold the part by value");
}

TEST_CASE("layers take batches of no samples, as exact evaluation gives them") {
  const nn::MultiheadAttention attention(4, 2, {.batch_first = true});
  Tensor x = zeros({0, 3, 4});
  x.requires_grad_();
  for (const bool weights : {true, false}) {
    const Tensor y = attention(x, x, x, {.need_weights = weights}).first;
    CHECK(y.shape() == Dims{0, 3, 4});
    CHECK(grad(sum(y), x).shape() == Dims{0, 3, 4});
  }
}

TEST_CASE("group norm of half precision with f32 parameters stays half") {
  CHECK(nn::GroupNorm(2, 4)(ones({1, 4, 3}, f16)).dtype() == f16);
}

TEST_CASE("train, eval and freeze reach everything below") {
  Net net;
  nn::eval(net);
  CHECK(!net.drop.training);
  CHECK(!net.norm.training);
  nn::train(net);
  CHECK(net.drop.training);
  nn::freeze(net.fc1);
  CHECK(!net.fc1.weight.requires_grad());
  CHECK(net.scale.requires_grad());
  nn::freeze(net.fc1, false);
  CHECK(net.fc1.weight.requires_grad());
}

TEST_CASE("to() converts in place: handles, ties and gradients stay") {
  Tied net;
  const Tensor handle = net.first.weight;
  net(ones({1, 2})).sum().backward();
  const std::string grad = show(net.first.weight.grad());
  nn::to(net, f64);
  CHECK(handle.dtype() == f64);
  CHECK(handle.is_same(net.second.weight));
  CHECK(net.first.weight.requires_grad());
  CHECK(net.first.weight.grad().dtype() == f64);
  CHECK("f32" + show(net.first.weight.grad()).substr(3) == grad);
  net(ones({1, 2}, f64)).sum().backward();
  nn::BatchNorm1d norm(2);
  nn::to(norm, bf16);
  CHECK(norm.running_var.dtype() == bf16);
  CHECK(norm.num_batches_tracked.dtype() == i64);
}

TEST_CASE("loading lists everything that is wrong, and changes nothing then") {
  nn::Sequential net(nn::Linear(3, 2), nn::Linear(2, 2));
  const std::string before = show(net.get<1>().bias);
  const std::map<std::string, Tensor> values = {{"0.weight", ones({2, 4})},
                                                {"0.bias", ones({3})},
                                                {"1.bias", ones({2})},
                                                {"head.bias", ones({1})},
                                                {"head.weight", ones({1})}};
  CHECK(error_of([&] { nn::load_state_dict(net, values); }) ==
        "load_state_dict: missing keys: 1.weight; unexpected keys: head.bias, head.weight; shapes differ: 0.weight is "
        "[2, 3] here and [2, 4] in the values, 0.bias is [2] here and [3] in the values");
  CHECK(show(net.get<1>().bias) == before);
  CHECK(
      error_of([&] { nn::load_state_dict(net, values, false); }) ==
      "load_state_dict: shapes differ: 0.weight is [2, 3] here and [2, 4] in the values, 0.bias is [2] here and [3] in "
      "the values");
  const Tensor handle = net.get<1>().bias;
  nn::load_state_dict(net, {{"1.bias", tensor({3, 4}).to(f64)}, {"other", ones({1})}}, false);
  CHECK(show(handle) == "f32[2] 3 4");  // converted
}

namespace {

struct SeveralKinds {
  nn::Linear fc{2, 1};
  Buffer seen{zeros({}, i64)}, mask{ones({2}, boolean)};
  LOOM_MEMBERS(fc, seen, mask)
};

}  // namespace

TEST_CASE("loading converts within floating, integral and boolean dtypes, and refuses others") {
  SeveralKinds net;
  constexpr DType dtypes[] = {f64, f32, f16, bf16, i64, i32, u8, boolean};
  for (const auto& [name, tensor] : nn::state_dict(net))
    for (const DType dtype : dtypes) {
      CAPTURE(name);
      CAPTURE(to_string(dtype));
      const bool fits =
          is_floating(tensor.dtype()) == is_floating(dtype) && (tensor.dtype() == boolean) == (dtype == boolean);
      const Tensor value = full(tensor.shape(), 1, dtype), before = tensor.clone();
      const std::string text = error_of([&] { nn::load_state_dict(net, {{name, value}}, false); });
      CHECK(text == (fits ? ""
                          : str("load_state_dict: dtypes differ: ", name, " is ", tensor.dtype(), " here and ", dtype,
                                " in the values")));
      CHECK(equal(tensor, fits ? ones_like(tensor) : before));
      const NoGrad off;
      tensor.zero_();
    }
  CHECK(
      error_of([&] {
        nn::load_state_dict(net, {{"fc.weight", ones({2, 2}, i32)}, {"fc.bias", ones({1}, boolean)}}, false);
      }) ==
      "load_state_dict: shapes differ: fc.weight is [1, 2] here and [2, 2] in the values; dtypes differ: fc.weight is "
      "f32 here and i32 in the values, fc.bias is f32 here and boolean in the values");
}

TEST_CASE("SkipInit leaves the generator and the values alone") {
  const Generator before = context().generator;
  {
    const nn::SkipInit skip;
    const Net net;
    CHECK(net.fc1.weight.shape() == Dims{4, 3});
  }
  CHECK(context().generator == before);
  CHECK(!context().skip_init);
  const nn::Linear net(2, 2);
  CHECK(context().generator != before);
}

TEST_CASE("layers are made in the default dtype, or their own") {
  CHECK(nn::Linear(2, 2, {.dtype = bf16}).bias.dtype() == bf16);
  context().default_dtype = f64;
  CHECK(nn::Conv2d(1, 1, 1).weight.dtype() == f64);
  context().default_dtype = f32;
}

TEST_CASE("no layer forgets a member") {
  const Tensor x = randn({5, 4}), sequence = randn({3, 2, 4}), image = randn({2, 4, 6, 6});
  check_members("Linear", nn::Linear(4, 3), x);
  check_members("Bilinear", nn::Bilinear(4, 4, 2), [&](const auto& n) { return n(x, x); });
  check_members("Conv1d", nn::Conv1d(2, 3, 2), sequence);
  check_members("Conv2d", nn::Conv2d(4, 3, 3), image);
  check_members("ConvTranspose2d", nn::ConvTranspose2d(4, 3, 3), image);
  check_members("BatchNorm1d", nn::BatchNorm1d(4), x);
  check_members("BatchNorm2d", nn::BatchNorm2d(4), image);
  check_members("LayerNorm", nn::LayerNorm(4), x);
  check_members("RMSNorm", nn::RMSNorm(4), x);
  check_members("GroupNorm", nn::GroupNorm(2, 4), image);
  check_members("Embedding", nn::Embedding(7, 3), tensor({1, 5}));
  check_members("PReLU", nn::PReLU(4), x);
  check_members("Sequential", nn::Sequential(nn::Linear(4, 3), nn::GELU(), nn::Dropout(0.1), nn::Linear(3, 2)), x);
  const auto self = [&](const auto& n) { return n(sequence, sequence, sequence).first; };
  check_members("MultiheadAttention", nn::MultiheadAttention(4, 2), self);
  check_members("MultiheadAttention, kdim", nn::MultiheadAttention(4, 2, {.kdim = 2, .vdim = 3}),
                [&](const auto& n) { return n(sequence, narrow(sequence, 2, 0, 2), narrow(sequence, 2, 0, 3)).first; });
  const nn::RecurrentOptions deep{.num_layers = 2, .dropout = 0.1, .bidirectional = true};
  const auto output = [&](const auto& n) { return n(sequence).output; };
  check_members("RNN", nn::RNN(4, 3, deep), output);
  check_members("GRU", nn::GRU(4, 3, deep), output);
  check_members("LSTM", nn::LSTM(4, 3, deep), output);
}

TEST_CASE("dropout: the identity in eval, a scaled mask in training, whole channels in Dropout2d") {
  nn::Dropout drop(0.25);
  const Tensor x = ones({1000}), y = drop(x);
  const double kept = (y != 0.0).to(f32).sum().item<double>();
  CHECK(kept > 680);
  CHECK(kept < 820);
  CHECK(y.max().item<double>() == doctest::Approx(1 / 0.75));
  nn::eval(drop);
  CHECK(show(drop(x)) == show(x));
  const Tensor channels = nn::Dropout2d(0.5)(ones({8, 16, 3, 3}));
  CHECK(equal(amax(channels, {2, 3}), amin(channels, {2, 3})));
  CHECK(error_of([] { nn::Dropout(1.5); }) == "Dropout: the probability has to be between 0 and 1, got 1.5");
}

TEST_CASE("layers say what is wrong") {
  CHECK(error_of([] { nn::Conv2d(3, 4, 3, {.groups = 2}); }) ==
        "Conv2d: in_channels must be divisible by groups, got 3 and 2");
  CHECK(error_of([] { nn::Conv2d(3, 4, 3, {.stride = 2, .padding = "same"}); }) ==
        "Conv2d: padding 'same' is for stride 1 only");
  CHECK(error_of([] { nn::MultiheadAttention(6, 4); }) ==
        "MultiheadAttention: embed_dim must be divisible by num_heads, got 6 and 4");
  CHECK(error_of([] { nn::GroupNorm(3, 4); }) ==
        "GroupNorm: num_channels must be divisible by num_groups, got 4 and 3");
  CHECK(error_of([] { nn::BatchNorm2d(3)(ones({2, 3})); }) == "BatchNorm2d: expects [N, C, H, W], got [2, 3]");
  CHECK(error_of([] {
          nn::Linear net(2, 2);
          nn::to(net, i64);
        }) == "to: a module has a floating dtype, got i64");
  CHECK(error_of([] {  // [S, N], as the other arguments are
          const Tensor x = ones({3, 2, 4});
          nn::MultiheadAttention(4, 2)(x, x, x, {.key_padding_mask = zeros({3, 2}, boolean)});
        }) == "MultiheadAttention: key_padding_mask is [3, 2], expected [2, 3]");
  CHECK(error_of([] { nn::Embedding(3, 2, {.padding_idx = 3}); }) ==
        "Embedding: padding_idx 3 is out of range for 3 embeddings");
}
