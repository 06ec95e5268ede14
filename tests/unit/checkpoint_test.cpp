// SPDX-License-Identifier: Apache-2.0
// Activation checkpointing: the same bits as without, one recomputation, less memory.
#include <loom/accelerators/memory.h>
#include <loom/autograd/checkpoint.h>
#include <loom/autograd/engine.h>
#include <loom/autograd/ops.h>
#include <loom/nn/nn.h>

#include "tensor_test.h"

namespace {

using namespace loom;
using tensor_test::error_of;
using tensor_test::show;

struct Block {
  nn::Linear up{6, 12}, down{12, 6};
  nn::Dropout drop{0.4};
  mutable int runs = 0;

  Tensor operator()(const Tensor& x) const {
    ++runs;
    return x + down(drop(tanh(up(x))));
  }
  LOOM_MEMBERS(up, down, drop)
};

struct Net {
  std::vector<Block> blocks = std::vector<Block>(3);
  bool checkpointed = false;

  Tensor operator()(Tensor x) const {
    for (const Block& block : blocks) x = checkpointed ? checkpoint(block, x) : block(x);
    return x;
  }
  LOOM_MEMBERS(blocks)
};

std::vector<std::string> gradients(const Net& net) {
  std::vector<std::string> out;
  for (const auto& [name, p] : nn::parameters(net)) out.push_back(name + " " + show(p.grad()));
  return out;
}

}  // namespace

TEST_CASE("gradients are equal bit for bit with and without, dropout included, and so is the generator after") {
  Net plain;
  Net saving = nn::clone(plain);
  saving.checkpointed = true;
  const Tensor x = randn({4, 6});
  manual_seed(3);
  plain(x).sum().backward();
  const Generator after = context().generator;
  manual_seed(3);
  const Tensor y = saving(x);
  CHECK(context().generator == after);
  const Tensor unrelated = rand({5});  // the recomputation must not see that the stream has moved on
  const Generator moved = context().generator;
  y.sum().backward();
  CHECK(context().generator == moved);
  CHECK(gradients(plain) == gradients(saving));
  for (const Block& block : saving.blocks) CHECK(block.runs == 2);
}

TEST_CASE("training flags are those of the forward pass") {
  Net plain;
  Net saving = nn::clone(plain);
  saving.checkpointed = true;
  const Tensor x = randn({4, 6});
  manual_seed(4);
  plain(x).sum().backward();
  manual_seed(4);
  const Tensor y = saving(x);
  nn::eval(saving);
  y.sum().backward();
  CHECK(gradients(plain) == gradients(saving));
  CHECK(!saving.blocks[0].drop.training);
}

TEST_CASE("several outputs, inputs without gradient, captured tensors, other arguments") {
  const Tensor a = randn({3}).requires_grad_(), b = randn({3}), c = randn({3}).requires_grad_();
  const auto f = [&c](const Tensor& p, const Tensor& q, double scale) {
    const Tensor s = sin(p * q);
    return std::pair(s * c * scale, exp(s) + p);
  };
  const auto [y, z] = f(a, b, 2.0);
  const Tensor outputs[] = {y, z.sum()}, inputs[] = {a, c};
  const Tensor seed = randn({3}), seeds[] = {seed, Tensor()};
  const auto expected = grad(outputs, inputs, seeds);
  const auto [u, v] = checkpoint(f, a, b, 2.0);
  const Tensor outputs2[] = {u, v.sum()};
  const auto got = grad(outputs2, inputs, seeds);
  CHECK(show(got[0]) == show(expected[0]));
  CHECK(show(got[1]) == show(expected[1]));
  CHECK(!a.grad().defined());
}

TEST_CASE("a region inside a region") {
  const Tensor x = randn({4}).requires_grad_();
  int inner_runs = 0, outer_runs = 0;
  const auto inner = [&](const Tensor& t) {
    ++inner_runs;
    return exp(sin(t)) * t;
  };
  const auto outer = [&](const Tensor& t, bool again) {
    ++outer_runs;
    const Tensor h = cos(t) * t;
    return tanh(again ? checkpoint(inner, h) : inner(h)) * h;
  };
  const Tensor expected = grad(outer(x, false).sum(), x);
  inner_runs = outer_runs = 0;
  CHECK(show(grad(checkpoint(outer, x, true).sum(), x)) == show(expected));
  CHECK(outer_runs == 2);
  CHECK(inner_runs == 3);  // forward, for the outer one's recomputation, for its own
}

TEST_CASE("second order, and twice through a retained graph") {
  const Tensor x = randn({3}, f64).requires_grad_();
  int runs = 0;
  const auto f = [&runs](const Tensor& t) {
    ++runs;
    return (sin(t) * exp(t)).sum();
  };
  const auto second = [&](const Tensor& y) {
    const Tensor g = grad(y, x, {}, {.create_graph = true});
    return grad((g * g).sum(), x);
  };
  const Tensor expected = second(f(x));
  CHECK(show(second(checkpoint(f, x))) == show(expected));

  runs = 0;
  const Tensor y = checkpoint(f, x);
  const Tensor first = grad(y, x, {}, {.retain_graph = true});
  CHECK(runs == 2);
  CHECK(show(grad(y, x)) == show(first));
  CHECK(runs == 3);  // once per backward: what the first computed was dropped at its end
}

TEST_CASE("a gradient inside a region") {
  const Tensor x = randn({3}, f64).requires_grad_();
  const auto f = [](const Tensor& t) {
    const Tensor h = exp(t);
    return (grad((h * h).sum(), h, {}, {.create_graph = true}) * sin(t)).sum();
  };
  const Tensor expected = grad(f(x), x);
  CHECK(show(grad(checkpoint(f, x), x)) == show(expected));
}

TEST_CASE("a gradient inside a region, through a parameter that it captures") {
  const Tensor x = randn({2, 3}, f64).requires_grad_();
  const nn::Linear net(3, 3, {.dtype = f64});
  const auto inner_loop = [&net](const Tensor& t) {
    const Tensor g = grad(square(net(t)).sum(), net.weight, {}, {.create_graph = true});
    return linear(t, net.weight - g * 0.1, net.bias).sum();
  };
  inner_loop(x).backward();
  const std::string expected = show(net.weight.grad()) + show(net.bias.grad()) + show(x.grad());
  for (const Tensor& leaf : {Tensor(net.weight), Tensor(net.bias), x}) leaf.set_grad({});
  checkpoint(inner_loop, x).backward();
  CHECK(show(net.weight.grad()) + show(net.bias.grad()) + show(x.grad()) == expected);
}

TEST_CASE("leaf hooks run once, when the gradient is complete") {
  nn::Linear shared(4, 4);
  const auto f = [&shared](const Tensor& t) { return tanh(shared(t)); };
  int ready = 0;
  on_grad_ready(shared.weight, [&] { ++ready; });
  const Tensor x = randn({2, 4});
  checkpoint(f, checkpoint(f, x)).sum().backward();
  CHECK(ready == 1);
  const std::string got = show(shared.weight.grad());
  nn::zero_grad(shared);
  f(f(x)).sum().backward();
  CHECK(got == show(shared.weight.grad()));
}

TEST_CASE("without gradients it is a call") {
  int runs = 0;
  const auto f = [&runs](const Tensor& t) {
    ++runs;
    return t * 2.0;
  };
  {
    const NoGrad no_grad;
    CHECK(!checkpoint(f, ones({2}).requires_grad_()).requires_grad());
  }
  CHECK(!checkpoint(f, ones({2})).requires_grad());
  CHECK(runs == 2);
}

TEST_CASE("batch norm's running statistics move once") {
  nn::BatchNorm1d norm(3);
  const Tensor x = randn({5, 3}).requires_grad_();
  const nn::BatchNorm1d reference = nn::clone(norm);
  reference(x).sum().backward();
  const std::string gradient = show(x.grad());
  x.set_grad({});
  const Tensor y = checkpoint(norm, x);
  y.sum().backward();
  CHECK(show(norm.running_mean) == show(reference.running_mean));
  CHECK(norm.num_batches_tracked.item<int64_t>() == 1);
  CHECK(show(x.grad()) == gradient);
}

TEST_CASE("a function that does something else the second time is an error") {
  const Tensor x = ones({2, 3}).requires_grad_();
  int runs = 0;
  const Tensor fewer = checkpoint([&](const Tensor& t) { return runs++ == 0 ? exp(sin(t)) : sin(t); }, x);
  CHECK(error_of([&] { fewer.sum().backward(); }) ==
        "checkpoint: the forward pass saved 2 tensors for backward, the recomputation 1; the function must do the same "
        "both times");
  runs = 0;
  const Tensor other =
      checkpoint([&](const Tensor& t) { return exp(sin(runs++ == 0 ? t * 2.0 : narrow(t * 2.0, 0, 0, 1))).sum(); }, x);
  CHECK(error_of([&] { other.backward(); }) ==
        "checkpoint: the recomputation saved other values than the forward pass: tensor 1 is f32[2, 3] in the forward "
        "pass and f32[1, 3] in the recomputation; the function must do the same both times");
}

TEST_CASE("an input modified before backward is an error") {
  const Tensor x = ones({3}).requires_grad_(), h = x * 2.0;
  const Tensor y = checkpoint([](const Tensor& t) { return exp(t) * t; }, h);
  {
    const NoGrad no_grad;
    h.add_(1);
  }
  CHECK(error_of([&] { y.sum().backward(); }).find("was modified in place") != std::string::npos);
}

TEST_CASE("the recomputation stops when nothing more is needed") {
  const Tensor x = randn({3}).requires_grad_();
  int after = 0;
  const auto f = [&](const Tensor& t) {
    const Tensor y = exp(sin(t));
    ++after;  // reached in the forward pass only: what follows saves nothing
    return y + 1.0;
  };
  checkpoint(f, x).sum().backward();
  CHECK(after == 1);
}

TEST_CASE("what a product keeps is what it kept in the forward pass, though a factor was frozen or unfrozen since") {
  for (const bool trained : {true, false}) {
    CAPTURE(trained);
    const Tensor x = randn({2, 3}).requires_grad_();
    Tensor w = randn({2, 3}).requires_grad_(trained);
    const Tensor y = checkpoint([&](const Tensor& t) { return t * w; }, x);
    w.requires_grad_(!trained);
    y.sum().backward();
    CHECK(show(x.grad()) == show(w.detach()));
    if (trained && w.grad().defined()) CHECK(show(w.grad()) == show(x.detach()));
  }
}

TEST_CASE("peak memory is the inputs of all blocks and the inside of one") {
  constexpr int64_t layers = 16, rows = 64, width = 64, inside = 20;
  std::vector<nn::Linear> weights;
  weights.reserve(layers);
  for (int i = 0; i < layers; ++i) weights.emplace_back(width, width);
  const auto peak = [&](bool saving) {
    Tensor x = randn({rows, width}).requires_grad_();
    const int64_t before = memory_stats().allocated;
    reset_peak_memory_stats();
    for (const nn::Linear& linear : weights) {
      const auto block = [&linear](const Tensor& t) {
        Tensor h = linear(t);
        for (int i = 0; i < inside; ++i) h = sin(h);
        return h;
      };
      x = saving ? checkpoint(block, x) : block(x);
    }
    x.sum().backward();
    return static_cast<double>(memory_stats().peak_allocated - before) / (rows * width * 4);
  };
  CHECK(peak(false) > layers * inside);
  for (const nn::Linear& linear : weights) nn::zero_grad(linear);
  CHECK(peak(true) < layers + inside + layers + 10);  // inputs, one block, the weights' gradients, some temporaries
}
