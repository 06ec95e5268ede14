// The engine: what is computed, when hooks fire, what is freed, and what is refused.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <loom/accelerators/memory.h>
#include <loom/autograd/engine.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/parameter.h>
#include <loom/tensor/create.h>

using namespace loom;

namespace {

Tensor leaf(std::initializer_list<double> values) { return tensor(values, f64).requires_grad_(); }

std::vector<double> values(const Tensor& x) { return x.to_vector<double>(); }

}  // namespace

TEST_CASE("backward adds to leaves' gradients") {
  const Tensor x = leaf({1, 2, 3});
  sum(x * x).backward();
  CHECK(values(x.grad()) == std::vector<double>{2, 4, 6});
  sum(x * 3.0).backward();
  CHECK(values(x.grad()) == std::vector<double>{5, 7, 9});
  x.set_grad({});
  CHECK_FALSE(x.grad().defined());
}

TEST_CASE("a tensor used twice gets both contributions, in any order of arguments") {
  const Tensor x = leaf({2});
  const Tensor y = x * x;
  sum(y * x + y).backward();  // x^3 + x^2
  CHECK(values(x.grad()) == std::vector<double>{16});
}

TEST_CASE("broadcasting is undone on the edge") {
  const Tensor row = leaf({1, 2}), column = tensor({{1.0}, {2.0}, {3.0}}, f64).requires_grad_();
  sum(row * column).backward();
  CHECK(row.grad().shape() == Dims{2});
  CHECK(values(row.grad()) == std::vector<double>{6, 6});
  CHECK(column.grad().shape() == Dims{3, 1});
  CHECK(values(column.grad()) == std::vector<double>{3, 3, 3});
}

TEST_CASE("a gradient has its input's dtype") {
  const Tensor x = ones({2}, f32).requires_grad_(), y = ones({2}, f64).requires_grad_();
  sum(x * y).backward();
  CHECK(x.grad().dtype() == f32);
  CHECK(y.grad().dtype() == f64);
}

TEST_CASE("a leaf owns its gradient: add hands the same tensor to both") {
  const Tensor a = leaf({1}), b = leaf({1}), seed = tensor({1.0}, f64);
  (a + b).backward(seed);
  a.grad().fill_(5);
  CHECK(values(b.grad()) == std::vector<double>{1});
  CHECK(values(seed) == std::vector<double>{1});
}

TEST_CASE("grad leaves .grad alone and runs only what leads to its inputs") {
  const Tensor x = leaf({3}), other = leaf({4});
  int calls = 0;
  const Tensor side = other * 2.0;
  side.register_hook([&](const Tensor&) -> std::optional<Tensor> {
    ++calls;
    return {};
  });
  const Tensor y = x * x + (side * 5.0);
  CHECK(values(grad(y, x)) == std::vector<double>{6});
  CHECK_FALSE(x.grad().defined());
  CHECK(calls == 0);
}

// {x} must not become a Tensor, whose [0] is a row.
TEST_CASE("grad: braces name several tensors, also where there is one") {
  const Tensor x = leaf({3, 4}), w = leaf({5, 6});
  const Tensor y = sum(x * x * w), z = sum(w) * 2.0, seed = tensor({2.0}, f64).reshape({});
  const auto gradients = [](const std::vector<Tensor>& all) {
    std::vector<std::vector<double>> out;
    out.reserve(all.size());
    for (const Tensor& g : all) out.push_back(values(g));
    return out;
  };
  using Rows = std::vector<std::vector<double>>;
  const GradOptions keep{.retain_graph = true};
  static_assert(std::is_same_v<decltype(grad(y, x)), Tensor>);
  static_assert(std::is_same_v<decltype(grad(y, {x})), std::vector<Tensor>>);
  static_assert(std::is_same_v<decltype(grad({y}, x)), std::vector<Tensor>>);
  static_assert(std::is_same_v<decltype(grad({y}, {x})), std::vector<Tensor>>);
  const Rows dx = {{30, 48}}, both = {{30, 48}, {9, 16}};
  CHECK(values(grad(y, x, {}, keep)) == dx[0]);
  CHECK(values(grad(y, {x}, {}, keep)[0]) == dx[0]);
  CHECK(gradients(grad(y, {x}, {}, keep)) == dx);
  CHECK(gradients(grad({y}, x, {}, keep)) == dx);
  CHECK(gradients(grad(y, {x, w}, {}, keep)) == both);
  CHECK(gradients(grad(y, std::vector{x, w}, {}, keep)) == both);
  CHECK(gradients(grad({y, z}, {w}, {}, keep)) == Rows{{11, 18}});
  CHECK(gradients(grad({y, z}, {x, w}, {seed, {}}, keep)) == Rows{{60, 96}, {20, 34}});
  CHECK(gradients(grad(y, {x}, {seed}, keep)) == Rows{{60, 96}});
  CHECK(gradients(grad(y, {x}, seed, keep)) == Rows{{60, 96}});
  CHECK(values(grad(y, x, {seed}, keep)) == std::vector<double>{60, 96});
  CHECK(grad(y, std::vector<Tensor>{}, {}, keep).empty());
  const Parameter p(ones({2}, f64));
  CHECK(gradients(grad(sum(p * x), {p})) == Rows{{3, 4}});
  CHECK(values(grad(sum(p * x), p)) == std::vector<double>{3, 4});
  CHECK(gradients(grad(sum(p * x), {p, x})) == Rows{{3, 4}, {1, 1}});

  CHECK(values(cat({x})) == std::vector<double>{3, 4});
  CHECK(stack({x}).shape() == Dims{1, 2});
  CHECK(split(x, {2}).size() == 1);
  CHECK(split(x, {1, 1}).size() == 2);
  CHECK(split(x, 1).size() == 2);

  backward({y}, {seed}, true);
  CHECK(values(x.grad()) == std::vector<double>{60, 96});
  backward({y, z}, {seed, seed}, true);
  CHECK(values(w.grad()) == std::vector<double>{2 * 18 + 4, 2 * 32 + 4});
  backward(y, seed);
  CHECK(values(x.grad()) == std::vector<double>{180, 288});
}

TEST_CASE("grad with respect to a tensor between") {
  const Tensor x = leaf({3});
  const Tensor between = x * 2.0, y = between * between;
  CHECK(values(grad(y, between)) == std::vector<double>{12});
}

TEST_CASE("create_graph: derivatives of any order") {
  const Tensor x = leaf({2});
  Tensor y = x * x * x * x;
  const double expected[] = {32, 48, 48, 24};
  for (const double value : expected) {
    y = grad(y, x, {}, {.create_graph = true});
    CHECK(y.item<double>() == value);
  }
}

TEST_CASE("create_graph through a saved output (exp) and through backward()") {
  const Tensor x = leaf({0.5});
  const Tensor second = grad(grad(exp(x * 2.0), x, {}, {.create_graph = true}), x);
  CHECK(second.item<double>() == doctest::Approx(4 * std::exp(1.0)));

  (x * x * x).backward({}, false, true);
  const Tensor first = x.grad();
  x.set_grad({});
  CHECK(grad(first, x).item<double>() == doctest::Approx(3.0));
}

TEST_CASE("the graph is freed by backward, and kept by retain_graph") {
  const Tensor x = leaf({3});
  const Tensor y = x * x;
  y.backward({}, true);
  y.backward();
  CHECK(values(x.grad()) == std::vector<double>{12});
  CHECK_THROWS_WITH_AS(
      y.backward(),
      "mul: backward through a graph that an earlier backward has freed; pass retain_graph to the earlier one "
      "to differentiate twice",
      Error);
}

TEST_CASE("a saved tensor that was modified in place is noticed") {
  const Tensor x = leaf({3});
  const Tensor y = x * 2.0;
  const Tensor z = y * y;
  {
    const NoGrad off;
    y.add_(1.0);
  }
  CHECK_THROWS_WITH_AS(
      z.backward(),
      "mul: a tensor saved for backward was modified in place (version 1, saved at 0); clone it before "
      "the in-place operation",
      Error);
}

TEST_CASE("a product keeps a factor only for the other one's gradient") {
  const Tensor x = leaf({3}), factor = tensor({2.0}, f64);
  const Tensor hidden = x * x, right = hidden * factor, left = factor * hidden, both = hidden * x;
  CHECK(hidden.body_pointer()->references() == 2);  // this handle and `both`
  const NoGrad off;
  hidden.add_(1.0);
  right.backward({}, true);
  left.backward({}, true);
  CHECK(values(x.grad()) == std::vector<double>{24});
  CHECK_THROWS_WITH_AS(both.backward(), doctest::Contains("was modified in place"), Error);
  factor.add_(1.0);
  CHECK_THROWS_WITH_AS(right.backward(), doctest::Contains("was modified in place"), Error);
}

TEST_CASE("nodes run in the reverse order of their making, whichever are ready") {
  const Tensor x = leaf({1});
  std::vector<int> order;
  std::vector<Tensor> made{x};
  const auto add_node = [&](size_t a, size_t b) {
    made.push_back(made[a] * made[b]);
    made.back().register_hook([&order, n = static_cast<int>(made.size())](const Tensor&) -> std::optional<Tensor> {
      order.push_back(n);
      return {};
    });
  };
  for (const auto& [a, b] :
       {std::pair<size_t, size_t>{0, 0}, {0, 0}, {1, 0}, {2, 1}, {0, 2}, {3, 3}, {5, 4}, {7, 6}, {1, 8}})
    add_node(a, b);
  made.back().backward(ones({1}, f64), true);
  std::vector<int> expected = order;
  std::sort(expected.begin(), expected.end(), std::greater<>());
  CHECK(order.size() == 9);
  CHECK(order == expected);
}

TEST_CASE("in place is refused where it would not be recorded") {
  const Tensor x = leaf({3}), y = tensor({1.0}, f64);
  const char* const text =
      "add_: an in-place operation on (or with) a tensor that requires grad is not recorded; use the function that "
      "returns "
      "a new tensor, or wrap the call in NoGrad";
  CHECK_THROWS_WITH_AS(x.add_(1.0), text, Error);
  CHECK_THROWS_WITH_AS(y.add_(x), text, Error);
  const NoGrad off;
  x.add_(1.0);
  CHECK(values(x) == std::vector<double>{4});
}

TEST_CASE("NoGrad, EnableGrad and detach") {
  const Tensor x = leaf({3});
  {
    const NoGrad off;
    CHECK_FALSE((x * x).requires_grad());
    const EnableGrad on;
    CHECK((x * x).requires_grad());
  }
  const Tensor d = (x * x).detach();
  CHECK_FALSE(d.requires_grad());
  const Tensor y = x * 2.0;
  CHECK(y.detach().storage() == y.storage());
}

TEST_CASE("leaves: what may and may not require grad") {
  const Tensor x = leaf({1});
  Tensor y = x * 2.0, integers = arange(3);
  CHECK(x.is_leaf());
  CHECK_FALSE(y.is_leaf());
  CHECK_THROWS_WITH_AS(y.requires_grad_(),
                       "requires_grad_: only leaves can be changed; this tensor was computed by mul; detach it first",
                       Error);
  CHECK_THROWS_WITH_AS(integers.requires_grad_(),
                       "requires_grad_: only floating tensors can require grad, this one is i64", Error);
}

TEST_CASE("seeds are checked") {
  const Tensor x = leaf({1, 2});
  CHECK_THROWS_WITH_AS(
      (x * 2.0).backward(),
      "backward: output 0 has shape [2]; a gradient must be given for outputs of more than one element", Error);
  CHECK_THROWS_WITH_AS((x * 2.0).backward(ones({3}, f64)),
                       "backward: the gradient of output 0 has shape [3], the output [2]", Error);
  CHECK_THROWS_WITH_AS(ones({1}).backward(),
                       "backward: output 0 does not require grad; no input of it does, or it was computed under NoGrad",
                       Error);
  const Tensor unused = leaf({1});
  CHECK_THROWS_WITH_AS(
      grad(sum(x), unused),
      "grad: the outputs do not depend on input 0; set allow_unused to get an undefined gradient instead", Error);
  CHECK_FALSE(grad(sum(x), unused, {}, {.allow_unused = true}).defined());
}

TEST_CASE("hooks: a tensor's gradient may be replaced before it is used") {
  const Tensor x = leaf({3});
  const Tensor y = x * 2.0;
  const uint64_t number = y.register_hook([](const Tensor& g) -> std::optional<Tensor> { return g * 10.0; });
  (y * 1.0).backward();
  CHECK(values(x.grad()) == std::vector<double>{20});

  x.set_grad({});
  const Tensor z = x * 2.0;
  z.remove_hook(z.register_hook([](const Tensor& g) -> std::optional<Tensor> { return g * 10.0; }));
  z.backward();
  CHECK(values(x.grad()) == std::vector<double>{2});
  y.remove_hook(number);
}

TEST_CASE("on_grad_ready fires once a backward, when all contributions have arrived") {
  const Tensor first = leaf({2}), last = leaf({3});
  std::vector<std::string> order;
  on_grad_ready(first,
                [&] { order.push_back("first " + std::to_string(static_cast<int>(first.grad().item<double>()))); });
  on_grad_ready(last, [&] { order.push_back("last " + std::to_string(static_cast<int>(last.grad().item<double>()))); });
  const Tensor y = first * 2.0;                                   // first is used here,
  sum((y * last) + first).backward();                             // and here: 2 * 3 + 1 = 7; last: 4
  CHECK(order == std::vector<std::string>{"last 4", "first 7"});  // what was used last is ready first
}

TEST_CASE("a leaf's first gradient goes into its buffer, later ones are added there") {
  const Tensor x = leaf({1, 2}), bucket = full({4}, -1, f64);
  set_grad_buffer(x, bucket.narrow(0, 1, 2));
  sum(x * x).backward();
  CHECK(x.grad().storage() == bucket.storage());
  CHECK(values(bucket) == std::vector<double>{-1, 2, 4, -1});
  sum(x).backward();
  CHECK(values(bucket) == std::vector<double>{-1, 3, 5, -1});
  x.set_grad({});
  sum(x).backward();
  CHECK(values(bucket) == std::vector<double>{-1, 1, 1, -1});
}

TEST_CASE("retain_grad keeps the gradient of a tensor between") {
  const Tensor x = leaf({3});
  const Tensor y = x * 2.0;
  y.retain_grad();
  y.retain_grad();  // once more changes nothing
  (y * y).backward();
  CHECK(values(y.grad()) == std::vector<double>{12});
}

TEST_CASE("on_backward_end runs after the last gradient, and not after an error") {
  const Tensor x = leaf({1});
  int ended = 0;
  bool had_grad = false;
  const Tensor y = x * 2.0;
  y.register_hook([&](const Tensor&) -> std::optional<Tensor> {
    on_backward_end([&] {
      ++ended;
      had_grad = x.grad().defined();
    });
    return {};
  });
  y.backward();
  CHECK(ended == 1);
  CHECK(had_grad);

  const Tensor z = x * 2.0;
  z.register_hook([&](const Tensor&) -> std::optional<Tensor> {
    on_backward_end([&] { ++ended; });
    throw Error("from a hook");
  });
  CHECK_THROWS_WITH_AS(z.backward(), "from a hook", Error);
  CHECK(ended == 1);
  (x * 2.0).backward();  // the engine is usable again
}

TEST_CASE("a chain of a million ops: forward, backward and destruction without recursion") {
  const int64_t before = memory_stats().allocated;
  {
    const Tensor x = leaf({0});
    Tensor y = x;
    for (int i = 0; i < 1'000'000; ++i) y = y + 1.0;
    CHECK(y.item<double>() == 1e6);
    y.backward();
    CHECK(x.grad().item<double>() == 1);
    Tensor kept = x;
    for (int i = 0; i < 1'000'000; ++i) kept = neg(kept);  // destroyed without a backward
  }
  CHECK(memory_stats().allocated == before);
}

TEST_CASE("an op's saved output does not keep the graph alive") {
  const int64_t before = memory_stats().allocated;
  {
    const Tensor x = ones({1000}, f64).requires_grad_();
    for (int i = 0; i < 10; ++i) exp(x);
  }
  CHECK(memory_stats().allocated == before);
}

TEST_CASE("several outputs: backward over all of them at once") {
  const Tensor x = leaf({1, 2});
  const auto parts = unbind(x);
  const Tensor outputs[] = {parts[0] * 2.0, parts[1] * 3.0};
  backward(outputs);
  CHECK(values(x.grad()) == std::vector<double>{2, 3});
}

TEST_CASE("dims may be one number, and an index a tensor, as in PyTorch") {
  const Tensor x = tensor({{1.0, 2.0}, {3.0, 4.0}}, f64);
  CHECK(values(x.sum(1)) == std::vector<double>{3, 7});
  CHECK(values(x.mean(-1)) == std::vector<double>{1.5, 3.5});
  CHECK(x.sum({}).item<double>() == 10);
  CHECK(zeros(3).shape() == Dims{3});
  CHECK(values(x.max(0).first) == std::vector<double>{3, 4});
  CHECK(values(x.var(0)) == std::vector<double>{2, 2});
  CHECK(values(pow(x, 2)) == values(x * x));
  CHECK(values(x.index({x > 2.5})) == std::vector<double>{3, 4});
  CHECK(values(x.index({0, tensor({1, 0})})) == std::vector<double>{2, 1});
}

TEST_CASE("a gradient that does not fit is refused") {
  const Tensor x = leaf({1, 2});
  CHECK_THROWS_WITH_AS(x.set_grad(zeros(2, f32)), "set_grad: the gradient is f32[2] on cpu, the tensor f64[2] on cpu",
                       Error);
}

TEST_CASE("a parameter is a leaf; copying copies, sharing is asked for") {
  const Parameter p(tensor({1.0, 2.0}, f64));
  CHECK(p.requires_grad());
  Parameter copy = p;
  CHECK(copy.storage() != p.storage());
  CHECK(copy.requires_grad());
  copy.share(p);
  CHECK(copy.is_same(p));
  const Tensor handle = p;
  CHECK(handle.is_same(p));
}

TEST_CASE("a linear layer's gradient is added where .grad lies, or written into the buffer given for it") {
  const Tensor weight = randn({3, 4}, f64).requires_grad_(), x = randn({5, 4}, f64);
  const Tensor expected = matmul(ones({3, 5}, f64), x);
  const auto differ = [](const Tensor& a, const Tensor& b) { return abs(a - b).max().item<double>(); };
  linear(x, weight).sum().backward();
  const Tensor grad = weight.grad();
  const uint64_t version = grad.version();
  linear(x, weight).sum().backward();
  CHECK(weight.grad().is_same(grad));
  CHECK(grad.version() > version);
  CHECK(differ(grad, expected * 2.0) < 1e-12);
  (linear(x, weight) + linear(x, weight)).sum().backward();  // several contributions
  CHECK(differ(grad, expected * 4.0) < 1e-12);

  const Tensor buffer = full({3, 4}, 7.0, f64);
  set_grad_buffer(weight, buffer);
  weight.set_grad({});
  linear(x, weight).sum().backward();
  CHECK(weight.grad().is_same(buffer));
  CHECK(differ(buffer, expected) < 1e-12);
  weight.register_hook([](const Tensor& g) -> std::optional<Tensor> { return g * 0.5; });
  linear(x, weight).sum().backward();
  CHECK(differ(buffer, expected * 1.5) < 1e-12);
}

TEST_CASE("a rule that throws frees its node, for it may have written over what it kept") {
  const Tensor x = leaf({2}), y = x * x;
  {
    const NoGrad no_grad;
    x.add_(1);
  }
  CHECK_THROWS_WITH_AS(y.backward(ones({1})), doctest::Contains("was modified in place"), Error);
  CHECK_THROWS_WITH_AS(y.backward(ones({1})), doctest::Contains("an earlier backward has freed"), Error);
}

TEST_CASE("who watches a gradient's memory hears of each write before it, and the product still goes there directly") {
  const Tensor weight = randn({256, 256}).requires_grad_(), x = randn({4, 256});
  const Tensor buffer = full({256, 256}, 7.0);
  set_grad_buffer(weight, buffer);
  int told = 0;
  bool untouched = true;
  const uint64_t number =
      before_grad_write(weight, [&] { untouched = untouched && (++told > 1 || buffer[0][0].item<float>() == 7); });
  const auto extra_bytes = [&] {
    const Tensor loss = linear(x, weight).sum();
    reset_peak_memory_stats();
    const int64_t before = memory_stats().allocated;
    loss.backward();
    return memory_stats().peak_allocated - before;
  };
  const int64_t bytes = weight.numel() * 4;
  CHECK(extra_bytes() < bytes / 2);  // into the buffer
  CHECK(extra_bytes() < bytes / 2);  // added there
  CHECK(weight.grad().is_same(buffer));
  CHECK(told == 2);
  CHECK(untouched);
  sum(weight * 2.0).backward();  // not a product: added by the engine
  CHECK(told == 3);
  grad(sum(linear(x, weight)), weight);  // writes nowhere
  CHECK(told == 3);
  remove_grad_write_hook(weight, number);
  linear(x, weight).sum().backward();
  CHECK(told == 3);
}
