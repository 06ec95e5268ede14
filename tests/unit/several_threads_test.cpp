// SPDX-License-Identifier: Apache-2.0
// Every kernel that divides its work among threads, at sizes that it divides: on several threads the results of one,
// and the same bits each time. Built with ThreadSanitizer (scripts/check tsan) this is where races show.
#include <functional>

#include <loom/autograd/engine.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/context.h>
#include <loom/tensor/create.h>

#include "kernel_test.h"

namespace {

using namespace loom;
using kernel_test::Threads;
using Tensors = std::vector<Tensor>;
using Call = std::function<Tensors(const Tensors&)>;

// Whether one thread must give the same bits: not where each thread sums its part (the gradient of a kernel).
enum class Bits { same, close };

// f's results and the gradients of its floating inputs.
Tensors evaluate(const Call& f, const Tensors& values) {
  Tensors inputs, leaves;
  for (const Tensor& v : values) {
    inputs.push_back(v.detach());
    if (is_floating(v.dtype())) leaves.push_back(inputs.back().requires_grad_());
  }
  Tensors results = f(inputs), cotangents;
  manual_seed(11);
  for (const Tensor& y : results)
    if (y.requires_grad()) cotangents.push_back(randn(y.shape(), y.dtype()));
  Tensors differentiable;
  for (const Tensor& y : results)
    if (y.requires_grad()) differentiable.push_back(y);
  for (const Tensor& g : grad(differentiable, leaves, cotangents, {.allow_unused = true}))
    if (g.defined()) results.push_back(g);
  return results;
}

void check_threads(const std::string& name, const Tensors& inputs, const Call& f, Bits bits = Bits::same) {
  CAPTURE(name);
  Tensors alone, together, again;
  {
    const Threads scope(1);
    alone = evaluate(f, inputs);
  }
  const Threads scope(3);
  together = evaluate(f, inputs), again = evaluate(f, inputs);
  REQUIRE(alone.size() == together.size());
  for (size_t i = 0; i < alone.size(); ++i) {
    CAPTURE(i);
    CHECK(equal(together[i], again[i]));
    if (bits == Bits::same)
      CHECK(equal(together[i], alone[i]));
    else
      CHECK(allclose(together[i], alone[i], 1e-4, 1e-3));
  }
}

}  // namespace

TEST_CASE("several threads: elements, copies, random numbers") {
  manual_seed(1);
  const Tensor x = randn({301, 517}), y = randn({301, 517}), row = randn({517});
  check_threads("elementwise", {x, row}, [](const Tensors& t) { return Tensors{exp(t[0]) * t[1], t[0] > t[1]}; });
  check_threads("where", {x, y}, [](const Tensors& t) { return Tensors{where(t[0] > 0.0, t[0], t[1])}; });
  check_threads("copies", {x}, [](const Tensors& t) {
    return Tensors{t[0].t().contiguous(), t[0].to(f16), cat({t[0], t[0]}, 1), flip(t[0], {1}), triu(t[0])};
  });
  check_threads("constants", {}, [](const Tensors&) { return Tensors{full({400, 500}, 3), arange(200000)}; });
  check_threads("random", {}, [](const Tensors&) {
    manual_seed(2);
    return Tensors{rand({300, 400}), randn({300, 401}, f64), randint(0, 9, {150000}), randperm(150000)};
  });
  check_threads("dropout", {x}, [](const Tensors& t) {
    manual_seed(3);
    return Tensors{dropout(t[0], 0.3)};
  });
}

TEST_CASE("several threads: reductions, scans, order") {
  manual_seed(4);
  const Tensor x = randn({301, 517});
  for (const int dim : {0, 1}) {
    check_threads("sums", {x}, [dim](const Tensors& t) {
      return Tensors{sum(t[0], {dim}), mean(t[0], {dim}), var(t[0], {dim}), logsumexp(t[0], {dim}), amax(t[0], {dim})};
    });
    check_threads("scans", {x}, [dim](const Tensors& t) {
      return Tensors{cumsum(t[0], dim), cumsum(t[0].to(f64), dim), cumprod(t[0], dim)};
    });
    check_threads("order", {x}, [dim](const Tensors& t) {
      const auto [sorted, from] = sort(t[0], dim);
      const auto [best, where] = max(t[0], dim);
      return Tensors{sorted, from, best, where, argmin(t[0], dim), topk(t[0], 3, dim).first};
    });
    check_threads("softmax", {x}, [dim](const Tensors& t) {
      return Tensors{softmax(t[0], dim), log_softmax(t[0], dim)};
    });
  }
  check_threads("all elements", {x}, [](const Tensors& t) { return Tensors{sum(t[0]), norm(t[0]), max(t[0])}; });
  check_threads("short rows", {randn({20000, 10}), randint(0, 10, {20000})}, [](const Tensors& t) {
    return Tensors{softmax(t[0], 1), cross_entropy(t[0], t[1])};
  });
  check_threads("long rows", {x, randint(0, 517, {301})},
                [](const Tensors& t) { return Tensors{cross_entropy(t[0], t[1])}; });
}

TEST_CASE("several threads: positions") {
  manual_seed(5);
  const Tensor table = randn({400, 67}), at = randint(0, 400, {3000});
  check_threads("rows", {table, at}, [](const Tensors& t) {
    return Tensors{embedding(t[1], t[0]), index_select(t[0], 0, t[1])};
  });
  check_threads("elements", {table, randint(0, 67, {400, 300}), randn({400, 300})}, [](const Tensors& t) {
    return Tensors{gather(t[0], 1, t[1]), scatter_add(t[0], 1, t[1], t[2])};
  });
  check_threads("lists", {table, at, randn({3000, 67})}, [](const Tensors& t) {
    return Tensors{index(t[0], {Index(t[1])}), index_put(t[0], {Index(t[1])}, t[2], true),
                   index_add(t[0], 0, t[1], t[2])};
  });
}

TEST_CASE("several threads: matrices, attention, recurrence") {
  manual_seed(6);
  for (const DType dtype : {f64, f32, bf16}) {
    const auto draw = [dtype](const Dims& shape) { return randn(shape, dtype); };
    check_threads("matrices", {draw({203, 310}), draw({310, 150})},
                  [](const Tensors& t) { return Tensors{matmul(t[0], t[1])}; });
    check_threads("wide", {draw({5, 310}), draw({310, 1500})},
                  [](const Tensors& t) { return Tensors{matmul(t[0], t[1])}; });
    check_threads("batches", {draw({12, 40, 70}), draw({12, 70, 50})},
                  [](const Tensors& t) { return Tensors{matmul(t[0], t[1])}; });
    check_threads("vector", {draw({1100, 700}), draw({700})},
                  [](const Tensors& t) { return Tensors{matmul(t[0], t[1])}; });
    check_threads("linear", {draw({150, 300}), draw({200, 300}), draw({200})},
                  [](const Tensors& t) { return Tensors{linear(t[0], t[1], t[2])}; });
  }
  for (const int64_t length : {65, 270})
    check_threads(
        "attention", {randn({6, length, 32}), randn({6, length, 32}), randn({6, length, 32})},
        [](const Tensors& t) { return Tensors{scaled_dot_product_attention(t[0], t[1], t[2], {.is_causal = true})}; });
  for (const RecurrentCell cell : {RecurrentCell::tanh, RecurrentCell::gru, RecurrentCell::lstm}) {
    const int64_t gates = cell == RecurrentCell::lstm ? 4 : cell == RecurrentCell::gru ? 3 : 1, rows = 130, size = 48;
    check_threads(
        "recurrent_steps",
        {randn({2, rows, gates * size}), randn({gates * size, size}), randn({gates * size}), randn({rows, size}),
         randn({rows, size})},
        [cell](const Tensors& t) {
          const bool is_lstm = cell == RecurrentCell::lstm;
          return Tensors{recurrent_steps(cell, t[0], t[1], t[2], t[3], is_lstm ? t[4] : Tensor(), false).first};
        });
  }
}

TEST_CASE("several threads: norms, convolutions, pools") {
  manual_seed(7);
  const Tensor x = randn({16, 24, 14, 15}), w24 = randn({24}), b24 = randn({24});
  for (const DType dtype : {f32, f64, bf16}) {
    const DType wide = dtype == f64 ? f64 : f32;
    check_threads("batch_norm", {x.to(dtype), w24.to(wide), b24.to(wide)},
                  [](const Tensors& t) { return Tensors{batch_norm(t[0], {}, {}, t[1], t[2], true)}; });
  }
  check_threads("batch_norm of rows", {randn({3000, 24}), w24, b24},
                [](const Tensors& t) { return Tensors{batch_norm(t[0], {}, {}, t[1], t[2], true)}; });
  check_threads("batch_norm, evaluation", {x, w24, b24, randn({24}), rand({24})},
                [](const Tensors& t) { return Tensors{batch_norm(t[0], t[3].detach(), t[4].detach(), t[1], t[2])}; });
  check_threads("layer_norm", {randn({800, 130}), randn({130}), randn({130})}, [](const Tensors& t) {
    return Tensors{layer_norm(t[0], {130}, t[1], t[2]), rms_norm(t[0], {130}, t[1])};
  });
  check_threads("pools", {x}, [](const Tensors& t) {
    return Tensors{max_pool2d(t[0], 3, {.stride = 2, .padding = 1}), avg_pool2d(t[0], 3, {.stride = 2, .padding = 1}),
                   adaptive_avg_pool2d(t[0], {3, 4})};
  });
  const auto conv = [&](const std::string& name, const Dims& weight, const Conv2dOptions& options) {
    for (const DType dtype : {f32, f64})
      check_threads(
          name, {x.to(dtype), randn(weight, dtype), randn({weight[0]}, dtype)},
          [&](const Tensors& t) { return Tensors{conv2d(t[0], t[1], t[2], options)}; }, Bits::close);
  };
  conv("conv2d", {32, 24, 3, 3}, {.padding = 1});
  conv("conv2d, stride", {32, 24, 3, 3}, {.stride = 2, .padding = 1});
  conv("conv2d, dilation", {20, 12, 3, 2}, {.dilation = {2, 1}, .groups = 2});
  conv("conv2d, 1 x 1", {40, 24, 1, 1}, {});
  conv("conv2d, depthwise", {24, 1, 3, 3}, {.padding = 1, .groups = 24});
}
