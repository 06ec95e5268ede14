// SPDX-License-Identifier: Apache-2.0
// Matrix products and attention on a GPU against the CPU's in f64, in every layout of the operands. Without a GPU the
// device is one that the host plays.
#include <cmath>
#include <functional>
#include <limits>

#include <loom/accelerators/cuda.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/context.h>
#include <loom/tensor/create.h>

#include "kernel_test.h"

using namespace loom;
using kernel_test::epsilon;

namespace {

bool has_gpu() {
  if (device_count(Device::cuda) > 0) return true;
  MESSAGE("skipped: " << cuda_description());
  return false;
}

enum class Lies : uint8_t { rows, columns, padded, reversed, stepped, backwards, batch_inside, shared };
constexpr Lies all_lies[] = {Lies::rows,    Lies::columns,   Lies::padded,       Lies::reversed,
                             Lies::stepped, Lies::backwards, Lies::batch_inside, Lies::shared};

// The same numbers on both devices, in one layout: what is exact on the CPU, and what is tried on the GPU.
struct Operand {
  Tensor exact, tried;
  Dims shape, strides;
  int64_t first = 0;

  Operand(const Dims& s, Lies lies, DType t) : shape(s), strides(row_major_strides(s)) {
    const int last = s.size() - 1;
    int64_t size = s.numel();
    if (lies == Lies::columns) {
      strides[last] = s[last - 1];
      strides[last - 1] = 1;
    } else if (lies == Lies::padded || lies == Lies::stepped) {
      Dims stored = s;
      stored[last] = 2 * s[last] + 1;
      strides = row_major_strides(stored);
      if (lies == Lies::stepped) strides[last] = 2;
      size = stored.numel();
    } else if (lies == Lies::reversed || lies == Lies::backwards) {
      const int d = lies == Lies::reversed ? last : 0;
      first = (s[d] - 1) * strides[d];
      strides[d] = -strides[d];
    } else if (lies == Lies::batch_inside && last >= 2) {
      strides[last] = 1;
      strides[0] = s[last];
      strides[last - 1] = s[last] * s[0];
      for (int64_t d = last - 2, step = s[last] * s[0] * s[last - 1]; d > 0; --d) {
        strides[static_cast<int>(d)] = step;
        step *= s[static_cast<int>(d)];
      }
    } else if (lies == Lies::shared) {
      for (int d = 0; d < last - 1; ++d) strides[d] = 0;
    }
    const Tensor numbers = randn({std::max<int64_t>(size, 1)}).to(t);
    exact = numbers.to(f64);
    tried = numbers.to(Device::cuda);
  }
  View view(const Tensor& storage) const {
    View v = storage;
    v.data = v.as<char>() + first * static_cast<int64_t>(item_size(v.dtype));
    v.shape = shape;
    v.strides = strides;
    return v;
  }
};

double worst(const Tensor& got, const Tensor& expected) {
  return got.numel() == 0 ? 0 : abs(got.to(Device()).to(f64) - expected).max().item<double>();
}

struct Trial {
  Dims a, b, c;
  Lies a_lies = Lies::rows, b_lies = Lies::rows, c_lies = Lies::rows, bias_lies = Lies::rows;
  bool bias = false;
  double alpha = 1, beta = 0;
  bool each = false;  // a bias of c's shape
};

void check_product(const Trial& t, DType in, DType out) {
  const Operand a(t.a, t.a_lies, in), b(t.b, t.b_lies, in), c(t.c, t.c_lies, out);
  const Operand bias(t.each ? t.c : Dims{1, t.c.back()}, t.bias_lies, out);
  const auto gemm = [&](const auto& storage) {
    View offset = bias.view(storage(bias));
    if (!t.each) {
      offset.shape.erase(0);
      offset.strides.erase(0);
    }
    accelerator(storage(a).device())
        .gemm({.c = c.view(storage(c)),
               .a = a.view(storage(a)),
               .b = b.view(storage(b)),
               .bias = t.bias ? offset : View(),
               .alpha = t.alpha,
               .beta = t.beta});
  };
  gemm([](const Operand& x) { return x.exact; });
  gemm([](const Operand& x) { return x.tried; });
  const double k = static_cast<double>(t.a.back());
  const double sums = epsilon(in == f64 ? f64 : f32) * 4 * (k + 4), rounding = epsilon(out) * (2 + 4 * std::sqrt(k));
  CAPTURE(to_string(in));
  CAPTURE(to_string(t.c));
  CAPTURE(static_cast<int>(t.a_lies));
  CAPTURE(static_cast<int>(t.b_lies));
  CAPTURE(static_cast<int>(t.c_lies));
  CHECK(worst(c.tried, c.exact) <= sums + rounding);
}

void check_product(const Trial& t) {
  for (const DType type : {f64, f32, f16, bf16}) check_product(t, type, type);
  for (const DType type : {f16, bf16}) check_product(t, type, f32);
}

}  // namespace

TEST_CASE("a GPU's matrix products: every layout of every operand") {
  if (!has_gpu()) return;
  manual_seed(1);
  for (const Lies a : all_lies)
    for (const Lies b : all_lies)
      for (const Lies c : all_lies) {
        if (c == Lies::shared) continue;
        const int turn = static_cast<int>(a) + static_cast<int>(b) + static_cast<int>(c);
        Trial t{.a_lies = a, .b_lies = b, .c_lies = c, .bias = turn % 2 == 0, .beta = turn % 3 == 0 ? 0.5 : 0};
        t.bias_lies = turn % 4 == 0 ? Lies::stepped : Lies::rows;
        t.alpha = turn % 5 == 0 ? -0.7 : 1;
        for (const Dims& s : {Dims{5, 7, 4}, Dims{1, 6, 3}, Dims{4, 1, 5}, Dims{3, 4, 1}, Dims{1, 1, 2}}) {
          t.a = {s[0], s[2]}, t.b = {s[2], s[1]}, t.c = {s[0], s[1]};
          check_product(t, turn % 2 == 0 ? f32 : bf16, f32);
          for (Dims* x : {&t.a, &t.b, &t.c}) x->insert(0, 3);
          check_product(t, f64, f64);
          for (Dims* x : {&t.a, &t.b, &t.c}) x->insert(0, 2);
          check_product(t, f32, f32);
        }
      }
}

TEST_CASE("a GPU's matrix products: dtypes, extents of 0") {
  if (!has_gpu()) return;
  manual_seed(2);
  check_product({.a = {9, 33}, .b = {33, 12}, .c = {9, 12}, .bias = true, .alpha = 0.5, .beta = 2});
  check_product({.a = {2, 9, 33}, .b = {2, 33, 7}, .c = {2, 9, 7}, .b_lies = Lies::columns});
  for (const Lies lies : {Lies::rows, Lies::columns, Lies::stepped})
    for (const int64_t k : {33, 0})
      check_product({.a = {2, 9, k},
                     .b = {2, k, 7},
                     .c = {2, 9, 7},
                     .c_lies = lies,
                     .bias_lies = Lies::stepped,
                     .bias = true,
                     .alpha = 0.5,
                     .each = true});
  for (const double beta : {0.0, 0.5})
    for (const bool bias : {false, true}) {
      check_product({.a = {4, 0}, .b = {0, 5}, .c = {4, 5}, .bias = bias, .beta = beta});
      check_product(
          {.a = {2, 3, 0}, .b = {2, 0, 6}, .c = {2, 3, 6}, .c_lies = Lies::columns, .bias = bias, .beta = beta});
      check_product({.a = {0, 4}, .b = {4, 5}, .c = {0, 5}, .bias = bias, .beta = beta});
      check_product({.a = {2, 4}, .b = {4, 0}, .c = {2, 0}, .beta = beta});
    }
}

namespace {

struct Heads {
  int64_t queries, keys, width, columns;
};

struct Outcome {
  Tensor y, lse, dq, dk, dv;
};

// Operands as projections of three heads lie, v turned; results likewise.
Outcome attend(const Heads& h, const std::vector<Tensor>& operands, const Tensor& mask, bool causal, DType t,
               Device device) {
  const auto at = [&](size_t i) { return operands[i].to(t).to(device); };
  const Tensor q = at(0).transpose(1, 2), k = at(1).transpose(1, 2), v = at(2).transpose(-2, -1), dy = at(3);
  const DType wide = t == f64 ? f64 : f32;
  const Tensor added = !mask.defined() ? mask : (mask.dtype() == boolean ? mask : mask.to(wide)).to(device);
  const Attention a{q, k, v, added.defined() ? View(added.expand({2, 3, h.queries, h.keys})) : View(), 0.3, causal};
  const auto blank = [&](const Dims& shape, DType type) { return full(shape, std::nan(""), {type, device}); };
  Outcome out{blank({2, 3, h.queries, h.columns}, t), blank({2, 3, h.queries}, wide),
              blank({2, h.queries, 3, h.width}, t), blank({2, 3, h.keys, h.width}, t),
              blank({2, 3, h.keys, h.columns}, t)};
  accelerator(device).attention(out.y, out.lse, a);
  accelerator(device).attention_grad(out.dq.transpose(1, 2), out.dk, out.dv, dy, out.y, out.lse, a);
  return out;
}

void check_attention(const Heads& h, const Tensor& mask, bool causal, DType t) {
  std::vector<Tensor> operands{randn({2, h.queries, 3, h.width}), randn({2, h.keys, 3, h.width}),
                               randn({2, 3, h.columns, h.keys}), randn({2, 3, h.queries, h.columns})};
  for (Tensor& x : operands) x = x.to(t);
  const Outcome expected = attend(h, operands, mask, causal, f64, Device());
  const Outcome got = attend(h, operands, mask, causal, t, Device::cuda);
  CAPTURE(to_string(t));
  CAPTURE(h.queries);
  CAPTURE(h.keys);
  const double e = epsilon(t), n = std::sqrt(static_cast<double>(std::max(h.queries, h.keys)));
  CHECK(worst(got.y, expected.y) < 16 * e);
  const Tensor finite = expected.lse < std::numeric_limits<double>::infinity();
  CHECK(all((got.lse.to(Device()) < std::numeric_limits<double>::infinity()) == finite).item<bool>());
  CHECK(worst(where(finite, got.lse.to(Device()).to(f64), zeros(expected.lse.shape(), f64)),
              where(finite, expected.lse, zeros(expected.lse.shape(), f64))) < 64 * epsilon(t == f64 ? f64 : f32) + e);
  CHECK(worst(got.dq, expected.dq) < 32 * e);
  CHECK(worst(got.dk, expected.dk) < 32 * e * n);
  CHECK(worst(got.dv, expected.dv) < 32 * e * n);
}

}  // namespace

TEST_CASE("a GPU's attention: masks, strides, sizes that are done in pieces") {
  if (!has_gpu()) return;
  manual_seed(3);
  for (const Heads h :
       {Heads{1, 1, 1, 1}, {3, 5, 4, 2}, {33, 17, 7, 9}, {70, 40, 8, 8}, {150, 60, 8, 3}, {9, 1100, 8, 8}}) {
    const Tensor allowed = logical_or(rand({2, 1, h.queries, h.keys}) < 0.6, arange(h.keys) == 0.0);
    const Tensor blank = logical_and(allowed, (arange(h.queries) != 0.0).reshape({h.queries, 1}));
    for (const DType t : {f64, f32, f16, bf16}) {
      check_attention(h, {}, false, t);
      check_attention(h, {}, true, t);
      check_attention(h, blank, false, t);
      check_attention(h, randn({3, 1, h.keys}), true, t);
    }
  }
}

TEST_CASE("a GPU's attention: other numbers of dimensions, keys that heads share") {
  if (!has_gpu()) return;
  manual_seed(4);
  const auto check = [](const Dims& q_shape, const Dims& k_shape, const Dims& batch) {
    const Tensor q = randn(q_shape).to(bf16), k = randn(k_shape).to(bf16), v = randn(k_shape).to(bf16);
    const int64_t queries = q_shape[q_shape.size() - 2], keys = k_shape[k_shape.size() - 2], width = q_shape.back();
    const auto run = [&](DType t, Device device) {
      const auto at = [&](const Tensor& x) {
        return x.to(t).to(device).expand(with_matrix(batch, x.size(-2), x.size(-1)));
      };
      const DType wide = t == f64 ? f64 : f32;
      const auto room = [&](int64_t rows) { return full(with_matrix(batch, rows, width), std::nan(""), {t, device}); };
      Dims rows = batch;
      rows.push_back(queries);
      Outcome out{room(queries), full(rows, std::nan(""), {wide, device}), room(queries), room(keys), room(keys)};
      const Tensor given_q = at(q), given_k = at(k), given_v = at(v);
      const Attention a{given_q, given_k, given_v, View(), 0.5, true};
      accelerator(device).attention(out.y, out.lse, a);
      accelerator(device).attention_grad(out.dq, out.dk, out.dv, given_q, out.y, out.lse, a);
      return out;
    };
    const Outcome expected = run(f64, Device()), got = run(bf16, Device::cuda);
    const double e = epsilon(bf16);
    CHECK(worst(got.y, expected.y) < 16 * e);
    CHECK(worst(got.lse, expected.lse) < e);
    CHECK(worst(got.dq, expected.dq) < 64 * e);
    CHECK(worst(got.dk, expected.dk) < 64 * e);
    CHECK(worst(got.dv, expected.dv) < 64 * e);
  };
  check({9, 16}, {12, 16}, {});
  check({3, 9, 16}, {3, 12, 16}, {3});
  check({2, 4, 9, 8}, {2, 1, 12, 8}, {2, 4});
  check({2, 2, 3, 9, 8}, {2, 1, 3, 5, 8}, {2, 2, 3});
}
