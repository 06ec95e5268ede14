// Scaled dot-product attention. The fused kernel keeps the result and a logsumexp of each query; what it does not take
// (dropout, a mask with a gradient) and a backward that is itself recorded are composed of other ops.
#include <cmath>
#include <limits>

#include <loom/autograd/compose.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/ops/derivatives.h>
#include <loom/tensor/create.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

namespace {

void check_operands(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  const char* const op = "scaled_dot_product_attention";
  for (const Tensor* const other : {&k, &v, &options.mask})
    if (other->defined()) raw::check_same_device(op, q, *other);
  raw::check_same_dtype(op, q, k);
  raw::check_same_dtype(op, q, v);
  raw::check_floating(op, q);
  const bool fits =
      q.dim() >= 2 && k.dim() >= 2 && v.dim() >= 2 && q.size(-1) == k.size(-1) && k.size(-2) == v.size(-2);
  check(fits, op, ": given q ", q.shape(), ", k ", k.shape(), ", v ", v.shape(),
        ", expected q [.., Tq, d], k [.., Tk, d], v [.., Tk, dv]");
  check(!options.mask.defined() || !options.is_causal, op,
        ": given a mask and is_causal, expected at most one of them");
  if (options.mask.defined())
    check(options.mask.dtype() == DType::boolean || is_floating(options.mask.dtype()), op, ": given a mask of ",
          options.mask.dtype(), ", expected boolean (true: attend) or floating (added to the scores)");
}

// Weights of rows that may attend to nothing are 0, not NaN.
Tensor attend(const Tensor& scores, const Tensor& allowed) {
  const Tensor hidden = logical_not(allowed);
  const Tensor weights = softmax(masked_fill(scores, hidden, -std::numeric_limits<double>::infinity()), -1);
  return masked_fill(weights, all(hidden, {-1}, true), 0.0);
}

// What each query takes of each key.
Tensor attention_weights(const Tensor& q, const Tensor& k, double scale, bool causal, const Tensor& mask) {
  const Tensor scores = matmul(q * scale, transpose(k, -2, -1));
  if (causal) {
    const Tensor lower = tril(ones({q.size(-2), k.size(-2)}, {DType::boolean, q.device()}));
    return softmax(masked_fill(scores, logical_not(lower), -std::numeric_limits<double>::infinity()), -1);
  }
  if (!mask.defined()) return softmax(scores, -1);
  return mask.dtype() == DType::boolean ? attend(scores, mask) : softmax(scores + mask.to(scores.dtype()), -1);
}

// Whether x, of any rank, broadcasts to [.., rows, columns] without stretching the two.
bool covers(const Tensor& x, int64_t rows, int64_t columns) {
  return (x.dim() < 1 || x.size(-1) == 1 || x.size(-1) == columns) &&
         (x.dim() < 2 || x.size(-2) == 1 || x.size(-2) == rows);
}

struct FusedAttention {
  double scale;
  bool causal;
  Tensor mask;  // undefined, boolean, or of the kernel's dtype
  Dims batch;

  Tensor expanded(const Tensor& x) const { return raw::expand(x, with_matrix(batch, x.size(-2), x.size(-1))); }
  loom::Attention operands(const Tensor& q, const Tensor& k, const Tensor& v) const {
    return {expanded(q), expanded(k),
            expanded(v), mask.defined() ? View(raw::expand(mask, with_matrix(batch, q.size(-2), k.size(-2)))) : View(),
            scale,       causal};
  }
  Grads fused(const Tensor& g, const Tensor& y, const Tensor& lse, const Tensor& q, const Tensor& k,
              const Tensor& v) const;
  Grads composed(const Tensor& g, const Tensor& q, const Tensor& k, const Tensor& v) const;
};

Grads FusedAttention::fused(const Tensor& g, const Tensor& y, const Tensor& lse, const Tensor& q, const Tensor& k,
                            const Tensor& v) const {
  const auto room = [&](const Tensor& x) {
    return empty(with_matrix(batch, x.size(-2), x.size(-1)), {x.dtype(), x.device()});
  };
  const Tensor dq = room(q), dk = room(k), dv = room(v);
  accelerator(q.device()).attention_grad(dq, dk, dv, g, y, lse, operands(q, k, v));
  return {dq, dk, dv};
}

Grads FusedAttention::composed(const Tensor& g, const Tensor& q, const Tensor& k, const Tensor& v) const {
  const Tensor weights = attention_weights(q, k, scale, causal, mask);
  const Tensor dweights = matmul(g, transpose(v, -2, -1));
  const Tensor dscores = softmax_grad(dweights, weights, -1) * scale;
  return {matmul(dscores, k), matmul(transpose(dscores, -2, -1), q), matmul(transpose(weights, -2, -1), g)};
}

bool can_fuse(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  const Tensor& mask = options.mask;
  return options.dropout == 0 && q.numel() > 0 && k.numel() > 0 && v.numel() > 0 &&
         (!mask.defined() || (!recording(mask) && covers(mask, q.size(-2), k.size(-2))));
}

Dims common_batch(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask) {
  const char* const op = "scaled_dot_product_attention";
  Dims batch =
      broadcast_shapes(op, batch_dims(q.shape()), broadcast_shapes(op, batch_dims(k.shape()), batch_dims(v.shape())));
  return mask.defined() && mask.dim() > 2 ? broadcast_shapes(op, batch, batch_dims(mask.shape())) : batch;
}

Tensor fused_attention(const Tensor& q_, const Tensor& k_, const Tensor& v_, const AttentionOptions& options,
                       double scale) {
  const auto [q, k, v] = enter(ops::scaled_dot_product_attention, q_, k_, v_);
  const DType sums = q.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor mask =
      options.mask.defined() && options.mask.dtype() != DType::boolean ? raw::cast(options.mask, sums) : options.mask;
  const FusedAttention attention{scale, options.is_causal, mask, common_batch(q, k, v, mask)};
  const Tensor y = empty(with_matrix(attention.batch, q.size(-2), v.size(-1)), {q.dtype(), q.device()});
  Dims rows = attention.batch;
  rows.push_back(q.size(-2));
  const Tensor lse = empty(rows, {sums, q.device()});
  accelerator(q.device()).attention(y, lse, attention.operands(q, k, v));
  return record(ops::scaled_dot_product_attention, y, {q, k, v},
                [attention, lse, kept_mask = save(mask), q = save(q), k = save(k), v = save(v)](const Tensor& g,
                                                                                                const Tensor& out) {
                  kept_mask();  // not written to meanwhile
                  return context().grad_mode ? attention.composed(wide(g), wide(q()), wide(k()), wide(v()))
                                             : attention.fused(g, out, lse, q(), k(), v());
                });
}

}  // namespace

Tensor scaled_dot_product_attention(const Tensor& q_, const Tensor& k_, const Tensor& v_,
                                    const AttentionOptions& given) {
  return compose(ops::scaled_dot_product_attention, std::tie(q_, k_, v_, given.mask),
                 [&](const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask) {
                   AttentionOptions options = given;
                   options.mask = mask;
                   check_operands(q, k, v, options);
                   const double scale = options.scale.value_or(1 / std::sqrt(static_cast<double>(q.size(-1))));
                   if (can_fuse(q, k, v, options)) return fused_attention(q, k, v, options, scale);
                   const auto composed = [&](const Tensor& queries, const Tensor& keys, const Tensor& values) {
                     const Tensor weights = attention_weights(queries, keys, scale, options.is_causal, options.mask);
                     return matmul(dropout(weights, options.dropout), values);
                   };
                   return in_wide(composed, q, k, v);
                 });
}

}  // namespace loom
