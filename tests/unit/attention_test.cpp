// SPDX-License-Identifier: Apache-2.0
// The fused attention against the one composed of other ops: values, gradients, what is kept.
#include <cmath>

#include <loom/accelerators/memory.h>
#include <loom/autograd/engine.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/context.h>

#include "tensor_test.h"

namespace {

using namespace loom;
using tensor_test::error_of;

struct Case {
  const char* name;
  AttentionOptions options;
};

// The same mask as one that is added and has a gradient, which the fused kernel leaves to the composed path.
AttentionOptions composed(const AttentionOptions& o, int64_t queries, int64_t keys) {
  AttentionOptions out = o;
  const double hidden = -std::numeric_limits<double>::infinity();
  Tensor mask = zeros({queries, keys}, f64);
  if (o.is_causal) mask = masked_fill(mask, logical_not(tril(ones({queries, keys}, boolean))), hidden);
  if (o.mask.defined())
    mask = o.mask.dtype() == boolean ? masked_fill(mask, logical_not(o.mask), hidden) : mask + o.mask.to(f64);
  out.is_causal = false;
  out.mask = mask.detach().requires_grad_();
  return out;
}

std::vector<Case> cases(int64_t queries, int64_t keys) {
  const Tensor allowed = logical_or(rand({queries, keys}) < 0.6, arange(keys) == 0.0);
  return {{"all", {}},
          {"causal", {.is_causal = true}},
          {"scale", {.scale = 0.3}},
          {"boolean mask", {.mask = allowed}},
          {"mask of keys", {.mask = allowed.select(0, 0).reshape({1, 1, keys})}},
          {"added mask", {.mask = randn({queries, keys}, f64)}},
          {"a mask for each head", {.mask = randn({3, queries, keys}, f64)}}};
}

double distance(const Tensor& a, const Tensor& b) {
  return a.numel() == 0 ? 0 : abs(a.to(f64) - b.to(f64)).max().item<double>();
}

struct Result {
  Tensor y;
  std::vector<Tensor> grads;
};

Result differentiated(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& o,
                      const Tensor& seed) {
  const Tensor y = scaled_dot_product_attention(q, k, v, o);
  const Tensor inputs[] = {q, k, v}, seeds[] = {seed.to(y.dtype())};
  return {y, grad(y, inputs, seeds)};
}

}  // namespace

TEST_CASE("fused attention: values and gradients of the composed one, at odd sizes and strides") {
  struct Sizes {
    int64_t queries, keys, width, columns;
  };
  for (const auto& [queries, keys, width, columns] : {Sizes{1, 1, 1, 1},
                                                      {3, 5, 4, 2},
                                                      {65, 33, 7, 9},
                                                      {64, 256, 8, 16},
                                                      {130, 70, 16, 3},
                                                      {20, 600, 5, 6},
                                                      {270, 263, 33, 17},
                                                      {1, 300, 20, 16},
                                                      {5, 290, 21, 32}}) {
    manual_seed(static_cast<uint64_t>(queries));
    // [N, T, heads, d] seen as [N, heads, T, d], as projections of several heads lie; v broadcast over N.
    const Tensor q = randn({2, queries, 3, width}, f64).transpose(1, 2).detach().requires_grad_();
    const Tensor k =
        randn({2, keys, 3, width * 2}, f64).slice(-1, 0, width * 2, 2).transpose(1, 2).detach().requires_grad_();
    const Tensor v = randn({1, 3, columns, keys}, f64).transpose(-2, -1).detach().requires_grad_();
    const Tensor seed = randn({2, 3, queries, columns}, f64);
    for (const auto& [name, options] : cases(queries, keys)) {
      CAPTURE(name);
      CAPTURE(queries);
      const Result expected = differentiated(q, k, v, composed(options, queries, keys), seed);
      const Result got = differentiated(q, k, v, options, seed);
      CHECK(distance(got.y, expected.y) < 1e-12);
      for (size_t i = 0; i < 3; ++i) CHECK(distance(got.grads[i], expected.grads[i]) < 1e-11);
      for (const auto& [dtype, error] : {std::pair(f32, 1e-5), std::pair(bf16, 0.05), std::pair(f16, 0.01)}) {
        const auto low = [t = dtype](const Tensor& x) { return x.detach().to(t).requires_grad_(); };
        const Result narrow = differentiated(low(q), low(k), low(v), options, seed);
        CHECK(distance(narrow.y, expected.y) < error * 2);
        for (size_t i = 0; i < 3; ++i)
          CHECK(distance(narrow.grads[i], expected.grads[i]) < error * 4 * std::sqrt(static_cast<double>(queries)));
      }
    }
  }
}

TEST_CASE("fused attention: heads that lie beside one another in a projection's rows do so in what comes out, too") {
  for (const DType t : {f32, f64, bf16}) {
    const int64_t batch = 2, length = 37, heads = 3, width = 20;
    const Tensor rows = randn({batch, length, 3 * heads * width}, f64).to(t).requires_grad_();
    const auto part = [&](int64_t i) {
      return transpose(reshape(narrow(rows, 2, i * heads * width, heads * width), {batch, length, heads, width}), 1, 2);
    };
    const AttentionOptions causal{.is_causal = true};
    const Tensor seed = randn({batch, heads, length, width}, f64).to(t);
    const auto [y, grads] = differentiated(part(0), part(1), part(2), causal, seed);
    const auto dense = differentiated(part(0).contiguous(), part(1).contiguous(), part(2).contiguous(), causal, seed);
    CAPTURE(to_string(t));
    CHECK(transpose(y, 1, 2).is_contiguous());
    CHECK(dense.y.is_contiguous());
    CHECK(distance(y, dense.y) == 0);
    for (size_t i = 0; i < grads.size(); ++i) {
      CHECK(transpose(grads[i], 1, 2).is_contiguous());
      CHECK(distance(grads[i], dense.grads[i]) == 0);
    }
  }
}

TEST_CASE(
    "fused attention: what comes out of heads side by side is written to, viewed and differentiated as any other") {
  struct Sizes {
    int64_t queries, keys, heads, key_heads;
  };
  for (const auto& [queries, keys, heads, key_heads] : {Sizes{6, 6, 3, 3}, {1, 7, 4, 2}, {5, 1, 2, 1}}) {
    CAPTURE(queries);
    const auto drawn = [](int64_t length, int64_t count) {
      return randn({2, length, count, 4}, f64).transpose(1, 2).detach().requires_grad_();
    };
    const Tensor q = drawn(queries, heads), k = drawn(keys, key_heads), v = drawn(keys, key_heads);
    const AttentionOptions options{.enable_gqa = true};
    const auto dense = [](const Tensor& x) { return x.detach().contiguous().requires_grad_(); };
    const Tensor other[] = {dense(q), dense(k), dense(v)}, inputs[] = {q, k, v};
    const Tensor y = scaled_dot_product_attention(q, k, v, options);
    const Tensor expected = scaled_dot_product_attention(other[0], other[1], other[2], options);
    CHECK(transpose(y, 1, 2).is_contiguous());
    if (queries > 1) CHECK(error_of([&] { y.view({2, heads * queries, 4}); }).find("view") != std::string::npos);
    CHECK(distance(y.reshape({2, heads * queries, 4}), expected.view({2, heads * queries, 4})) == 0);
    const auto twice = [](const Tensor& result, std::span<const Tensor> x) {
      std::vector<Tensor> out = grad((result * result).sum(), x, {}, {.create_graph = true});
      Tensor total = zeros({}, f64);
      for (const Tensor& g : out) total = total + (g * g).sum();
      for (const Tensor& g : grad(total, x)) out.push_back(g);
      return out;
    };
    const std::vector<Tensor> got = twice(y, inputs), wanted = twice(expected, other);
    for (size_t i = 0; i < got.size(); ++i) CHECK(distance(got[i], wanted[i]) < 1e-12);
    const Tensor written = y.detach(), copy = expected.detach();
    written.select(1, 0).add_(1.0);
    copy.select(1, 0).add_(1.0);
    CHECK(distance(written, copy) == 0);
  }
}

TEST_CASE("fused attention: rows that may attend to nothing are 0, and give no gradient") {
  const Tensor q = randn({4, 3}).requires_grad_(), k = randn({5, 3}).requires_grad_(),
               v = randn({5, 2}).requires_grad_();
  const Tensor allowed = (arange(4) != 2.0).reshape({4, 1}).expand({4, 5});
  const Result got = differentiated(q, k, v, {.mask = allowed}, ones({4, 2}));
  CHECK(distance(got.y.select(0, 2), zeros({2})) == 0);
  CHECK(distance(got.grads[0].select(0, 2), zeros({3})) == 0);
  CHECK(all(got.grads[1] == got.grads[1]).item<bool>());
  const double hidden = -std::numeric_limits<double>::infinity();
  const Tensor y = scaled_dot_product_attention(q, k, v, {.mask = full({4, 5}, hidden)});
  CHECK(all(y != y).item<bool>());  // as softmax of such a row
}

TEST_CASE("fused attention: NaN reaches its rows and no others") {
  Tensor q = randn({3, 2}), k = randn({300, 2}), v = randn({300, 2});
  q.select(0, 1).fill_(std::nan(""));
  const Tensor y = scaled_dot_product_attention(q, k, v);
  CHECK(all(y.select(0, 1) != y.select(0, 1)).item<bool>());
  CHECK(all(y.select(0, 0) == y.select(0, 0)).item<bool>());
}

TEST_CASE("fused attention keeps nothing of the size of all scores") {
  const int64_t length = 1024, width = 8;
  const Tensor q = randn({1, length, width}).requires_grad_(), k = randn({1, length, width}).requires_grad_(),
               v = randn({1, length, width}).requires_grad_();
  const int64_t before = memory_stats().allocated;
  reset_peak_memory_stats();
  scaled_dot_product_attention(q, k, v, {.is_causal = true}).sum().backward();
  CHECK(memory_stats().peak_allocated - before < length * length * 4 / 2);
}

TEST_CASE("fused attention: a saved operand that is written to is told of") {
  for (int written = 0; written < 3; ++written) {
    const Tensor leaves[] = {randn({4, 3}).requires_grad_(), randn({5, 3}).requires_grad_(),
                             randn({5, 2}).requires_grad_()};
    const Tensor x[] = {leaves[0] * 1.0, leaves[1] * 1.0, leaves[2] * 1.0};
    const Tensor y = scaled_dot_product_attention(x[0], x[1], x[2]);
    x[written].detach().zero_();
    CHECK(error_of([&] { y.sum().backward(); }).find("modified in place") != std::string::npos);
  }
}

TEST_CASE("attention whose heads share keys: as if each had its own, values, gradients and theirs") {
  // torch: k.repeat_interleave(n, -3).
  const auto repeated = [](const Tensor& x, int64_t n) {
    Dims shape = x.shape();
    shape[shape.size() - 3] *= n;
    std::vector<Tensor> heads;
    for (int64_t h = 0; h < shape[shape.size() - 3]; ++h) heads.push_back(x.select(-3, h / n));
    return stack(heads, -3);
  };
  struct Sizes {
    Dims batch, key_batch;
    int64_t heads, key_heads, value_heads;
  };
  for (const auto& [batch, key_batch, heads, key_heads, value_heads] :
       {Sizes{{2}, {2}, 6, 2, 2}, {{2}, {1}, 4, 1, 1}, {{}, {3}, 4, 4, 4}, {{2, 1}, {3}, 2, 1, 2}, {{}, {}, 6, 3, 2}}) {
    manual_seed(static_cast<uint64_t>(heads));
    const auto drawn = [](Dims shape, int64_t h, int64_t rows, int64_t width) {
      for (const int64_t n : {h, rows, width}) shape.push_back(n);
      return randn(shape, f64).requires_grad_();
    };
    const Tensor q = drawn(batch, heads, 5, 4), k = drawn(key_batch, key_heads, 7, 4),
                 v = drawn(key_batch, value_heads, 7, 3);
    for (const auto& [name, options] : cases(5, 7)) {
      if (options.mask.defined() && options.mask.dim() == 3) continue;  // for other heads
      for (const double p : {0.0, 0.4}) {
        CAPTURE(name);
        CAPTURE(p);
        AttentionOptions given = options;
        given.dropout = p;
        const Tensor all_k = repeated(k, heads / key_heads), all_v = repeated(v, heads / value_heads);
        manual_seed(11);
        const Tensor expected = scaled_dot_product_attention(q, all_k, all_v, given);
        given.enable_gqa = true;
        manual_seed(11);
        const Tensor y = scaled_dot_product_attention(q, k, v, given);
        CHECK(distance(y, expected) < 1e-13);
        const Tensor seed = randn(y.shape(), f64), inputs[] = {q, k, v}, seeds[] = {seed};
        const auto twice = [&](const Tensor& result) {
          std::vector<Tensor> out = grad(result, inputs, seeds, {.retain_graph = true, .create_graph = true});
          Tensor total = zeros({}, f64);
          for (const Tensor& g : out) total = total + (g * g).sum();
          for (const Tensor& g : grad(total, inputs, {})) out.push_back(g);
          return out;
        };
        const std::vector<Tensor> wanted = twice(expected), got = twice(y);
        for (size_t i = 0; i < wanted.size(); ++i) CHECK(distance(got[i], wanted[i]) < 1e-10);
        const std::vector<Tensor> fused = grad(scaled_dot_product_attention(q, k, v, given), inputs, seeds);
        for (size_t i = 0; p == 0 && i < fused.size(); ++i) CHECK(distance(fused[i], wanted[i]) < 1e-12);
      }
    }
  }
}
