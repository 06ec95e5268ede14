// SPDX-License-Identifier: Apache-2.0
// Regions of automatic casting: nesting, the casts that are kept, gradients. What each op does under them: the op
// sweep.
#include <doctest/doctest.h>

#include <loom/accelerators/memory.h>
#include <loom/autograd/autocast.h>
#include <loom/autograd/checkpoint.h>
#include <loom/autograd/engine.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/ops.h>
#include <loom/nn/functional_call.h>
#include <loom/nn/layer_norm.h>
#include <loom/nn/linear.h>
#include <loom/nn/optim/sgd.h>
#include <loom/tensor/create.h>

using namespace loom;

namespace {

// Blocks that f asks the allocator for.
template <class F>
int64_t allocations(const F& f) {
  const int64_t before = memory_stats().allocations;
  f();
  return memory_stats().allocations - before;
}

}  // namespace

TEST_CASE("each op runs in the dtype of its class") {
  const Tensor a = randn({3, 4}), b = randn({4, 5}), exact = randn({4, 4}, f64), whole = arange(16).reshape({4, 4});
  const Autocast region(bf16);
  CHECK(is_autocast_enabled());
  const Tensor y = matmul(a, b);
  CHECK(y.dtype() == bf16);
  CHECK(softmax(y, 1).dtype() == f32);
  CHECK(layer_norm(y, {5}).dtype() == f32);
  CHECK(mse_loss(y, y).dtype() == f32);
  CHECK(relu(y).dtype() == bf16);
  CHECK((y + randn({3, 5})).dtype() == f32);
  CHECK((y + 1.0).dtype() == bf16);
  CHECK((y * tensor({2.0}, f32)[0]).dtype() == bf16);  // a number
  CHECK(cat({y, randn({3, 5})}).dtype() == f32);
  CHECK(index_put(y, {1}, randn({5})).dtype() == f32);
  CHECK(index_put(y, {1}, tensor({2.0}, f32)[0]).dtype() == bf16);
  CHECK(matmul(exact, exact).dtype() == f64);
  CHECK(softmax(exact, 0).dtype() == f64);
  CHECK(sum(whole).dtype() == i64);
  CHECK(scaled_dot_product_attention(randn({2, 3, 4}), randn({2, 3, 4}), randn({2, 3, 4})).dtype() == bf16);
}

TEST_CASE("regions nest, may be disabled inside, and end with their scope, also when left by an exception") {
  const Tensor a = randn({2, 2});
  {
    const Autocast outer(bf16);
    {
      const Autocast off(bf16, false);
      CHECK(matmul(a, a).dtype() == f32);
      const Autocast inner(f16);
      CHECK(matmul(a, a).dtype() == f16);
    }
    CHECK(matmul(a, a).dtype() == bf16);
  }
  CHECK(matmul(a, a).dtype() == f32);
  try {
    const Autocast region(bf16);
    matmul(a, randn({3, 3}));
  } catch (const Error&) {
  }
  CHECK_FALSE(is_autocast_enabled());
}

TEST_CASE("the low precision is a 16-bit one") {
  CHECK_THROWS_WITH(Autocast{f32}, "autocast: the low precision is f16 or bf16, got f32");
}

TEST_CASE("binary_cross_entropy is refused") {
  const Tensor p = full({3}, 0.5), t = ones({3});
  const Autocast region(f16);
  CHECK_THROWS_WITH(binary_cross_entropy(p, t),
                    "binary_cross_entropy: unsafe under autocast, its argument would be rounded to 16 bits before the "
                    "logarithm; use binary_cross_entropy_with_logits, which takes logits, or call it in a scope of "
                    "Autocast(dtype, false)");
  const Autocast off(f16, false);
  CHECK(binary_cross_entropy(p, t).dtype() == f32);
}

TEST_CASE("gradients come back in f32, and sum over uses in f32") {
  const Tensor w = full({1, 256}, 0.01).requires_grad_(), x = ones({1, 256});
  Tensor y;
  {
    const Autocast region(bf16);
    y = sum(linear(x, w)) * 256.0 + sum(linear(x, w));
  }
  y.backward();
  CHECK(w.grad().dtype() == f32);
  CHECK(w.grad()[0][0].item<double>() == 257);  // bf16 would round the sum of both uses to 256
}

TEST_CASE("a linear layer's weight gets the f32 sums of its gradient, which are rounded to 16 bits nowhere") {
  for (const DType low : {bf16, f16}) {
    const Tensor w = randn({48, 40}).requires_grad_(), x = randn({64, 40}), dy = randn({64, 48});
    const auto exact = matmul(dy.to(low).to(f64).t(), x.to(low).to(f64));
    const auto backward_once = [&] {
      Tensor y;
      {
        const Autocast region(low);
        y = linear(x, w);
      }
      y.backward(dy.to(low));
    };
    const auto differ = [&](double times) { return abs(w.grad().to(f64) - exact * times).max().item<double>(); };
    backward_once();  // a tensor of its own
    CHECK(w.grad().dtype() == f32);
    CHECK(differ(1) < 1e-4);  // rounded to 16 bits it would be off by some 0.01
    const Tensor grad = w.grad();
    backward_once();  // added where it lies
    CHECK(w.grad().is_same(grad));
    CHECK(differ(2) < 1e-4);
    const Tensor buffer = full({48, 40}, 7.0);
    set_grad_buffer(w, buffer);
    w.set_grad({});
    backward_once();
    CHECK(w.grad().is_same(buffer));
    CHECK(differ(1) < 1e-4);
  }
}

TEST_CASE("under autocast, too, a weight's gradient is added without a tensor of its size") {
  const Tensor w = randn({256, 256}).requires_grad_(), x = randn({4, 256});
  set_grad_buffer(w, zeros({256, 256}));
  for (int i = 0; i < 2; ++i) {  // into the buffer, added there
    Tensor loss;
    {
      const Autocast region(bf16);
      loss = sum(linear(x, w));
    }
    reset_peak_memory_stats();
    const int64_t before = memory_stats().allocated;
    loss.backward();
    CHECK(memory_stats().peak_allocated - before < w.numel());
  }
}

TEST_CASE("a parameter is cast once in a region, and anew once it has changed") {
  nn::Linear fc(64, 64);
  const Tensor x = randn({1, 64}, bf16);
  const Autocast region(bf16);
  const int64_t first = allocations([&] { fc(x); }), second = allocations([&] { fc(x); });
  CHECK(first == second + 2);  // weight and bias
  {
    const Autocast inner(bf16);
    CHECK(allocations([&] { fc(x); }) == second);
    const NoGrad off;
    CHECK(allocations([&] { fc(x); }) == second);
  }
  const double before = fc(x).to(f32)[0][0].item<double>();
  {
    const NoGrad off;
    fc.weight.mul_(2.0);
    fc.bias.mul_(2.0);
  }
  CHECK(fc(x).to(f32)[0][0].item<double>() == doctest::Approx(2 * before).epsilon(0.02));
}

TEST_CASE("no cache: cast at each use") {
  nn::Linear fc(64, 64);
  const Tensor x = randn({1, 64}, bf16);
  const Autocast region(bf16, true, false);
  CHECK(allocations([&] { fc(x); }) == allocations([&] { fc(x); }));
}

TEST_CASE("a region's casts are fresh after an optimizer's step") {
  nn::Linear fc(4, 1);
  optim::SGD sgd(nn::parameters(fc), {.lr = 0.5});
  const Tensor x = ones({1, 4});
  std::vector<double> outputs;
  for (int step = 0; step < 2; ++step) {
    Tensor y;
    {
      const Autocast region(bf16);
      y = fc(x);
    }
    outputs.push_back(y.item<double>());
    fc.weight.set_grad({});
    y.backward(ones({1, 1}, bf16));
    sgd.step();
  }
  CHECK(outputs[1] == doctest::Approx(outputs[0] - 2.5).epsilon(0.02));
}

TEST_CASE("backward inside a region runs as recorded") {
  const Tensor w = randn({4, 4}).requires_grad_(), x = randn({2, 4});
  const auto gradient = [&](bool inside) {
    w.set_grad({});
    Tensor y;
    {
      const Autocast region(bf16);
      y = sum(square(linear(x, w)));
      if (inside) y.backward();
    }
    if (!inside) y.backward();
    return w.grad().clone();
  };
  CHECK(equal(gradient(true), gradient(false)));
}

TEST_CASE("second gradients through a region") {
  const Tensor w = randn({4, 4}).requires_grad_(), x = randn({2, 4});
  const auto second = [&](bool cast) {
    Tensor y;
    {
      const Autocast region(bf16, cast);
      y = sum(square(matmul(tanh(matmul(x, w)), w)));
    }
    const Tensor first = grad(y, w, {}, {.create_graph = true});
    CHECK(first.dtype() == f32);
    return grad(sum(square(first)), w);
  };
  const Tensor low = second(true), full = second(false);
  CHECK(low.dtype() == f32);
  CHECK(norm(low - full).item<double>() < 0.05 * norm(full).item<double>());
}

TEST_CASE("recomputation casts as the forward did") {
  nn::Linear first(8, 8), second(8, 8);
  nn::LayerNorm norm(Dims{8});
  const Tensor x = randn({3, 8}).requires_grad_();
  std::vector<DType> seen;
  const auto body = [&](const Tensor& in) {
    const Tensor h = first(in);
    seen.push_back(h.dtype());
    return second(relu(norm(h)));
  };
  const auto gradients = [&](bool recompute) {
    Tensor y;
    {
      const Autocast region(bf16);
      y = sum(square(recompute ? checkpoint(body, x) : body(x)));
    }
    return grad(std::vector{y}, std::vector<Tensor>{x, first.weight, second.weight, norm.weight});
  };
  const auto plain = gradients(false);
  seen.clear();
  const auto again = gradients(true);
  CHECK(seen == std::vector<DType>{bf16, bf16});  // the forward and its recomputation
  for (size_t i = 0; i < plain.size(); ++i) {
    CHECK(again[i].dtype() == f32);
    CHECK(equal(again[i], plain[i]));
  }
}

TEST_CASE("functional_call: values are cast in place of the parameters they stand for") {
  nn::Linear fc(3, 2);
  const Tensor weight = randn({2, 3}).requires_grad_(), x = ones({1, 3});
  Tensor y;
  {
    const Autocast region(bf16);
    y = functional_call(fc, {{"weight", weight}, {"bias", zeros({2})}}, x);
  }
  CHECK(y.dtype() == bf16);
  sum(y).backward();
  CHECK(weight.grad().dtype() == f32);
  CHECK_FALSE(fc.weight.grad().defined());
}
