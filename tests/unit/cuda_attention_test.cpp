// SPDX-License-Identifier: Apache-2.0
// What a GPU's attention does beside causal masks: masks of all kinds, heads that share keys, weights that are dropped.
// Without a GPU the device is one that the host plays.
#include <cmath>
#include <limits>

#include <loom/accelerators/cuda.h>
#include <loom/accelerators/fused.h>
#include <loom/autograd/engine.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/context.h>
#include <loom/tensor/create.h>
#include <loom/tensor/device_graph.h>

#include "kernel_test.h"
#include "tensor_test.h"

using namespace loom;
using kernel_test::epsilon;

namespace {

const Device gpu(Device::cuda);
const double infinity = std::numeric_limits<double>::infinity();

bool has_gpu() {
  if (device_count(Device::cuda) > 0) return true;
  MESSAGE("skipped: " << cuda_description());
  return false;
}

double worst(const Tensor& got, const Tensor& expected) {
  return abs(got.to(Device()).to(f64) - expected.to(Device()).to(f64)).max().item<double>();
}
bool is_all(const Tensor& condition) { return all(condition).item<bool>(); }

struct Sizes {
  int64_t batch, heads, key_heads, queries, keys, width, columns;
};

// q, k, v and a gradient of y, as projections lie.
std::vector<Tensor> operands(const Sizes& s, DType t) {
  const auto drawn = [&](int64_t heads, int64_t rows, int64_t width) {
    return randn({s.batch, rows, heads, width}).to(t).transpose(1, 2);
  };
  return {drawn(s.heads, s.queries, s.width), drawn(s.key_heads, s.keys, s.width),
          drawn(s.key_heads, s.keys, s.columns), drawn(s.heads, s.queries, s.columns)};
}

struct Result {
  Tensor y;
  std::vector<Tensor> grads;
};

Result differentiated(const std::vector<Tensor>& given, AttentionOptions o, DType t, Device device) {
  const auto at = [&](size_t i) { return given[i].detach().to(t).to(device); };
  const Tensor q = at(0).requires_grad_(), k = at(1).requires_grad_(), v = at(2).requires_grad_();
  if (o.mask.defined()) o.mask = o.mask.to(device);
  o.enable_gqa = true;
  const Tensor y = scaled_dot_product_attention(q, k, v, o);
  const Tensor inputs[] = {q, k, v}, seeds[] = {at(3)};
  return {y, grad(y, inputs, seeds)};
}

void check_near(const Result& got, const Result& expected, DType t, const Sizes& s) {
  const int64_t sums = std::max(s.queries, s.keys) * (s.heads / s.key_heads);
  const double e = epsilon(t), n = std::sqrt(static_cast<double>(sums));
  CHECK(worst(got.y, expected.y) < 16 * e);
  CHECK(worst(got.grads[0], expected.grads[0]) < 32 * e);
  for (const size_t i : {1, 2}) CHECK(worst(got.grads[i], expected.grads[i]) < 32 * e * n);
}

// Masks that broadcast over everything that they can.
std::vector<Tensor> masks(const Sizes& s) {
  std::vector<Tensor> out;
  for (const Dims& shape : {Dims{s.queries, s.keys},
                            {s.batch, 1, 1, s.keys},
                            {s.batch, 1, s.queries, s.keys},
                            {s.heads, s.queries, s.keys},
                            {s.batch, s.heads, s.queries, 1},
                            {s.batch, s.heads, s.queries, s.keys}}) {
    out.push_back(logical_or(rand(shape) < 0.6, arange(shape.back()) == 0.0));
    out.push_back(randn(shape));
    out.push_back(masked_fill(randn(shape), logical_not(out[out.size() - 2]), -infinity));
  }
  return out;
}

// Weights that are dropped where `kept` is 0, as a product of what they are made of.
Result composed(const std::vector<Tensor>& given, const Tensor& kept, double p, const AttentionOptions& o) {
  const auto at = [&](size_t i) { return given[i].detach().to(f64); };
  const Tensor q = at(0).requires_grad_(), k = at(1).requires_grad_(), v = at(2).requires_grad_();
  const int64_t n = q.size(1) / k.size(1);
  const auto repeated = [n](const Tensor& x) {
    return flatten(expand(unsqueeze(x, 2), {x.size(0), x.size(1), n, x.size(2), x.size(3)}), 1, 2);
  };
  Tensor scores = matmul(q, repeated(k).mT()) / std::sqrt(static_cast<double>(q.size(-1)));
  const Tensor lower = tril(ones({q.size(-2), k.size(-2)}, boolean));
  if (o.is_causal) scores = masked_fill(scores, logical_not(lower), -infinity);
  if (o.mask.defined()) scores = masked_fill(scores, logical_not(o.mask), -infinity);
  const Tensor y = matmul(softmax(scores, -1) * kept.to(f64) / (1 - p), repeated(v));
  const Tensor inputs[] = {q, k, v}, seeds[] = {at(3)};
  return {y, grad(y, inputs, seeds)};
}

bool drops_itself(const Sizes& s, DType t) {
  const auto of = [&](int64_t heads, int64_t rows, int64_t width) {
    return zeros({s.batch, heads, rows, width}, {t, gpu});
  };
  const Tensor q = of(s.heads, s.queries, s.width), k = of(s.key_heads, s.keys, s.width),
               v = of(s.key_heads, s.keys, s.columns), y = of(s.heads, s.queries, s.columns),
               lse = zeros({s.batch, s.heads, s.queries}, {f32, gpu});
  return accelerator(gpu).fused()->drops_in_attention(y, lse, {q, k, v, View(), 0.5, false}, 0.5);
}

}  // namespace

TEST_CASE("a GPU's attention: masks of all kinds, heads that share keys") {
  if (!has_gpu()) return;
  for (const Sizes& s : {Sizes{2, 4, 4, 16, 24, 8, 16}, {2, 4, 2, 17, 9, 16, 8}, {1, 6, 1, 40, 33, 8, 8}}) {
    manual_seed(static_cast<uint64_t>(s.queries));
    std::vector<AttentionOptions> list{{}, {.is_causal = true}};
    for (const Tensor& mask : masks(s)) list.push_back({.mask = mask});
    for (size_t i = 0; i < list.size(); ++i)
      for (const DType t : {f64, f32, f16, bf16}) {
        CAPTURE(i);
        CAPTURE(s.queries);
        CAPTURE(to_string(t));
        const std::vector<Tensor> given = operands(s, t);
        check_near(differentiated(given, list[i], t, gpu), differentiated(given, list[i], f64, Device()), t, s);
      }
  }
}

TEST_CASE("a GPU's attention: rows that may attend to nothing are 0, or NaN where numbers are added") {
  if (!has_gpu()) return;
  manual_seed(2);
  const Sizes s{2, 2, 1, 24, 16, 8, 8};
  const Tensor seen = expand((arange(s.queries) % 3 != 1.0).reshape({s.queries, 1}), {s.queries, s.keys});
  for (const DType t : {f32, f16, bf16}) {
    CAPTURE(to_string(t));
    const std::vector<Tensor> given = operands(s, t);
    const Result got = differentiated(given, {.mask = seen}, t, gpu);
    check_near(got, differentiated(given, {.mask = seen}, f64, Device()), t, s);
    for (const Tensor& x : {got.y, got.grads[0]})
      for (int64_t i = 1; i < s.queries; i += 3) CHECK(is_all(x.to(Device()).select(2, i) == 0.0));
    const Tensor added = masked_fill(randn({s.queries, s.keys}), logical_not(seen), -infinity);
    const Tensor y = differentiated(given, {.mask = added}, t, gpu).y.to(Device());
    CHECK(is_all((y == y) == seen.slice(1, 0, s.columns)));
    // A mask whose numbers are finite hides nothing as a whole.
    const AttentionOptions low{.mask = full({s.queries, s.keys}, std::numeric_limits<float>::lowest())};
    CHECK(worst(differentiated(given, low, t, gpu).y, differentiated(given, low, f64, Device()).y) < 16 * epsilon(t));
  }
}

TEST_CASE("a GPU's attention drops weights as it says: those that show in its result, with gradients to match") {
  if (!has_gpu()) return;
  const double p = 0.375;
  for (const Sizes& s : {Sizes{2, 4, 4, 24, 16, 8, 16}, {1, 4, 2, 19, 16, 16, 16}, {2, 3, 1, 16, 40, 8, 40}})
    for (const DType t : {f32, f16, bf16}) {
      CAPTURE(s.queries);
      CAPTURE(to_string(t));
      manual_seed(5);
      std::vector<Tensor> given = operands(s, t);
      const Tensor allowed = logical_or(rand({s.batch, 1, s.queries, s.keys}) < 0.7, arange(s.keys) == 0.0);
      for (AttentionOptions o :
           {AttentionOptions{.dropout = p}, {.dropout = p, .is_causal = true}, {.mask = allowed, .dropout = p}}) {
        const auto run = [&](const std::vector<Tensor>& x) {
          manual_seed(6);
          return differentiated(x, o, t, gpu);
        };
        // Of the unit matrix as v each weight is an element of the result.
        std::vector<Tensor> units = given;
        units[2] = eye(s.keys, f64).to(t).expand({s.batch, s.key_heads, s.keys, s.keys}).contiguous();
        const Tensor weights = run(units).y.to(Device());
        const Tensor kept = (weights != 0.0).to(f64);
        check_near({weights, run(units).grads}, composed(units, kept, p, o), t, s);
        const Result got = run(given), again = run(given);
        check_near(got, composed(given, kept, p, o), t, s);
        CHECK(equal(got.y, again.y));
        for (size_t i = 0; i < 3; ++i) CHECK(equal(got.grads[i], again.grads[i]));
        if (o.is_causal || o.mask.defined()) continue;
        const double count = static_cast<double>(kept.numel()), share = kept.mean().item<double>();
        CHECK(std::abs(share - (1 - p)) < 5 * std::sqrt(p * (1 - p) / count));
        CHECK(!equal(got.y, differentiated(given, o, t, gpu).y));  // the next draw
      }
    }
}

TEST_CASE("a GPU's attention: what is drawn after weights were dropped is what the CPU draws, and 0 and 1 are exact") {
  if (!has_gpu()) return;
  const Sizes s{1, 2, 2, 16, 24, 8, 8};
  const std::vector<Tensor> given = operands(s, bf16);
  const auto next = [&](Device device) {
    manual_seed(8);
    differentiated(given, {.dropout = 0.5}, bf16, device);
    return rand({7}, f64);
  };
  CHECK(equal(next(gpu), next(Device())));
  CHECK(equal(differentiated(given, {.dropout = 0}, bf16, gpu).y, differentiated(given, {}, bf16, gpu).y));
  CHECK(is_all(differentiated(given, {.dropout = 1}, bf16, gpu).y.to(Device()) == 0.0));
}

TEST_CASE("a GPU's attention: a captured step drops other weights at each replay, those of the step as it is") {
  if (!has_gpu()) return;
  const Sizes s{1, 2, 1, 16, 24, 8, 8};
  const auto run = [&](bool as_graph) {
    manual_seed(9);
    std::vector<Tensor> x;
    for (const Tensor& given : operands(s, bf16)) x.push_back(given.to(gpu).requires_grad_());
    const Tensor y = zeros({1, 2, 16, 8}, {bf16, gpu}), dq = zeros(x[0].shape(), {bf16, gpu});
    DeviceGraph graph(as_graph ? gpu : Device(), {.warm_up = 1});
    std::vector<Tensor> out;
    for (int i = 0; i < 4; ++i) {
      graph.run([&] {
        const Tensor result = scaled_dot_product_attention(x[0], x[1], x[2], {.dropout = 0.4, .enable_gqa = true});
        const Tensor inputs[] = {x[0]}, seeds[] = {x[3].detach()};
        dq.copy_(grad(result, inputs, seeds)[0]);
        y.copy_(result.detach());
      });
      out.push_back(y.to(Device()).clone());
      out.push_back(dq.to(Device()).clone());
    }
    CHECK(graph.is_captured() == as_graph);
    return out;
  };
  const std::vector<Tensor> replayed = run(true), expected = run(false);
  for (size_t i = 0; i < expected.size(); ++i) CHECK(equal(replayed[i], expected[i]));
  for (size_t i = 2; i < expected.size(); ++i) CHECK(!equal(replayed[i], replayed[i - 2]));
}

TEST_CASE("a GPU's attention: a gradient of the gradient is refused where weights were dropped by the device") {
  if (!has_gpu()) return;
  const Sizes s{1, 2, 2, 16, 16, 8, 8};
  std::vector<Tensor> x;
  for (const Tensor& given : operands(s, bf16)) x.push_back(given.to(gpu).requires_grad_());
  const Tensor y = scaled_dot_product_attention(x[0], x[1], x[2], {.dropout = 0.5});
  const Tensor inputs[] = {x[0]}, seeds[] = {x[3].detach()};
  const std::string said = tensor_test::error_of([&] { grad(y, inputs, seeds, {.create_graph = true}); });
  CHECK(said.empty() != drops_itself(s, bf16));
  CHECK((said.empty() || said.find("LOOM_CUDNN=0") != std::string::npos));
  CHECK(!drops_itself(s, f32));
}
