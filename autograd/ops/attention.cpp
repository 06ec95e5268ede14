// Scaled dot-product attention. The fused kernel keeps the result and a logsumexp of each query; what it does not take
// (a mask with a gradient, dropout but where the device drops weights itself) and a backward that is itself recorded
// are composed of other ops.
#include <cmath>
#include <limits>

#include <loom/accelerators/fused.h>
#include <loom/autograd/compose.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/ops/derivatives.h>
#include <loom/tensor/create.h>
#include <loom/tensor/device_graph.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

namespace {

constexpr int64_t words = 4;  // that a device draws from, each below the limit
constexpr double word_limit = 0x1p31;

bool divides(int64_t part, int64_t whole) { return part > 0 && whole % part == 0; }

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
  const bool has_heads = q.dim() >= 3 && k.dim() >= 3 && v.dim() >= 3;
  check(!options.enable_gqa || (has_heads && divides(k.size(-3), q.size(-3)) && divides(v.size(-3), q.size(-3))), op,
        ": given q ", q.shape(), ", k ", k.shape(), ", v ", v.shape(),
        " and enable_gqa, expected heads (dimension -3) of k and v that divide q's");
  check(!options.mask.defined() || !options.is_causal, op,
        ": given a mask and is_causal, expected at most one of them");
  if (options.mask.defined())
    check(options.mask.dtype() == DType::boolean || is_floating(options.mask.dtype()), op, ": given a mask of ",
          options.mask.dtype(), ", expected boolean (true: attend) or floating (added to the scores)");
}

// k or v with each head as often as heads of q share it.
Tensor repeated(const Tensor& x, int64_t heads) {
  if (x.dim() < 3 || x.size(-3) == heads) return x;
  Dims shape = x.shape();
  shape.insert(shape.size() - 2, heads / x.size(-3));
  return flatten(expand(unsqueeze(x, -3), shape), -4, -3);
}
// Its gradient: of heads that share one, the sum.
Tensor gathered(const Tensor& g, int64_t heads) {
  if (g.dim() < 3 || g.size(-3) == heads) return g;
  return sum(unflatten(g, -3, {heads, g.size(-3) / heads}), {-3});
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
  Tensor mask;            // undefined, boolean, or of the kernel's dtype
  Dims batch, key_batch;  // leading dimensions of q, and of k and v
  double keep = 1;
  Tensor words{};  // what the device draws from, where it drops weights

  Tensor expanded(const Tensor& x, const Dims& leading) const {
    return raw::expand(x, with_matrix(leading, x.size(-2), x.size(-1)));
  }
  loom::Attention operands(const Tensor& q, const Tensor& k, const Tensor& v) const {
    return {expanded(q, batch),
            expanded(k, key_batch),
            expanded(v, key_batch),
            mask.defined() ? View(raw::expand(mask, with_matrix(batch, q.size(-2), k.size(-2)))) : View(),
            scale,
            causal};
  }
  void forward(const Tensor& y, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v) const;
  Grads fused(const Tensor& g, const Tensor& y, const Tensor& lse, const Tensor& q, const Tensor& k,
              const Tensor& v) const;
  Grads composed(const Tensor& g, const Tensor& q, const Tensor& k, const Tensor& v) const;
};

// An output of these leading dimensions and rows of x's length. Where heads lie beside one another in x's rows, as a
// projection leaves them, so they do in the output: what joins them again copies nothing.
Tensor room_like(const Tensor& x, const Dims& leading, int64_t columns) {
  const TensorOptions options{x.dtype(), x.device()};
  Dims shape = with_matrix(leading, x.size(-2), columns);
  const int rank = x.dim();
  const bool side_by_side = rank >= 3 && shape.size() >= 3 && x.device().kind == Device::cpu && x.size(-3) > 1 &&
                            x.strides()[rank - 3] > 0 && x.strides()[rank - 3] < x.strides()[rank - 2];
  if (!side_by_side) return empty(shape, options);
  std::swap(shape[shape.size() - 3], shape[shape.size() - 2]);
  return raw::transpose(empty(shape, options), -3, -2);
}

void FusedAttention::forward(const Tensor& y, const Tensor& lse, const Tensor& q, const Tensor& k,
                             const Tensor& v) const {
  Accelerator& device = accelerator(q.device());
  if (words.defined())
    device.fused()->attention_dropout(y, lse, operands(q, k, v), {keep, words});
  else
    device.attention(y, lse, operands(q, k, v));
}

Grads FusedAttention::fused(const Tensor& g, const Tensor& y, const Tensor& lse, const Tensor& q, const Tensor& k,
                            const Tensor& v) const {
  const Tensor dq = room_like(q, batch, q.size(-1)), dk = room_like(k, key_batch, k.size(-1)),
               dv = room_like(v, key_batch, v.size(-1));
  Accelerator& device = accelerator(q.device());
  if (words.defined())
    device.fused()->attention_dropout_grad(dq, dk, dv, g, y, lse, operands(q, k, v), {keep, words});
  else
    device.attention_grad(dq, dk, dv, g, y, lse, operands(q, k, v));
  return {dq, dk, dv};
}

Grads FusedAttention::composed(const Tensor& g, const Tensor& q, const Tensor& k, const Tensor& v) const {
  check(!words.defined(), "scaled_dot_product_attention: a gradient of the gradient is asked for, but weights were ",
        "dropped by cuDNN, which has none; LOOM_CUDNN=0 has them dropped by Loom");
  const int64_t heads = batch.empty() ? 1 : batch.back(), fewer = key_batch.empty() ? 1 : key_batch.back();
  const bool shared = heads != fewer;
  const Tensor keys = shared ? repeated(k, heads) : k, values = shared ? repeated(v, heads) : v;
  const Tensor weights = attention_weights(q, keys, scale, causal, mask);
  const Tensor dweights = matmul(g, transpose(values, -2, -1));
  const Tensor dscores = softmax_grad(dweights, weights, -1) * scale;
  const Tensor dk = matmul(transpose(dscores, -2, -1), q), dv = matmul(transpose(weights, -2, -1), g);
  return {matmul(dscores, keys), shared ? gathered(dk, fewer) : dk, shared ? gathered(dv, fewer) : dv};
}

bool can_fuse(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  const Tensor& mask = options.mask;
  return q.numel() > 0 && k.numel() > 0 && v.numel() > 0 && (!options.enable_gqa || k.size(-3) == v.size(-3)) &&
         (!mask.defined() || (!recording(mask) && covers(mask, q.size(-2), k.size(-2))));
}

// Leading dimensions of q, which those of k, v and the mask broadcast to, and of k and v: where heads share theirs
// these have as many as they were given.
std::pair<Dims, Dims> common_batch(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask, bool shared) {
  const char* const op = "scaled_dot_product_attention";
  Dims keys = broadcast_shapes(op, batch_dims(k.shape()), batch_dims(v.shape()));
  const int64_t fewer = shared ? keys.back() : 1;
  if (shared) keys[keys.size() - 1] = q.size(-3);
  Dims batch = broadcast_shapes(op, batch_dims(q.shape()), keys);
  if (mask.defined() && mask.dim() > 2) batch = broadcast_shapes(op, batch, batch_dims(mask.shape()));
  keys = batch;
  if (shared) keys[keys.size() - 1] = fewer;
  return {batch, keys};
}

// Whether the device can drop weights in its fused kernel; if so, the words that it draws from. The generator goes on
// as if each weight had been drawn, as other devices do.
bool draws_dropout(FusedAttention& attention, const Tensor& y, const Tensor& lse, const Tensor& q, const Tensor& k,
                   const Tensor& v) {
  FusedKernels* const kernels = accelerator(q.device()).fused();
  const int64_t weights = lse.numel() * k.size(-2);
  if (kernels == nullptr || weights < words || attention.keep <= 0 || attention.keep >= 1 ||
      !kernels->drops_in_attention(y, lse, attention.operands(q, k, v), attention.keep))
    return false;
  const Philox state = context().generator.draw(weights, static_cast<uint64_t>(context().data_rank) + 1);
  check_drawn_on_device("scaled_dot_product_attention", q.device());
  attention.words = empty({words}, {DType::i64, q.device()});
  accelerator(q.device()).random(Random::integers, attention.words, 0, word_limit, state);
  return true;
}

// Undefined where weights are to be dropped and the device cannot.
Tensor fused_attention(const Tensor& q_, const Tensor& k_, const Tensor& v_, const AttentionOptions& options,
                       double scale) {
  const auto [q, k, v] = enter(ops::scaled_dot_product_attention, q_, k_, v_);
  const DType sums = q.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor mask =
      options.mask.defined() && options.mask.dtype() != DType::boolean ? raw::cast(options.mask, sums) : options.mask;
  const auto [batch, key_batch] = common_batch(q, k, v, mask, options.enable_gqa);
  FusedAttention attention{scale, options.is_causal, mask, batch, key_batch, 1 - options.dropout};
  const Tensor y = room_like(q, batch, v.size(-1));
  Dims rows = batch;
  rows.push_back(q.size(-2));
  const Tensor lse = empty(rows, {sums, q.device()});
  if (options.dropout != 0 && !draws_dropout(attention, y, lse, q, k, v)) return {};
  attention.forward(y, lse, q, k, v);
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
                   if (can_fuse(q, k, v, options))
                     if (Tensor y = fused_attention(q, k, v, options, scale); y.defined()) return y;
                   const auto composed = [&](const Tensor& queries, const Tensor& keys, const Tensor& values) {
                     const Tensor weights = attention_weights(queries, keys, scale, options.is_causal, options.mask);
                     return matmul(dropout(weights, options.dropout), values);
                   };
                   if (!options.enable_gqa) return in_wide(composed, q, k, v);
                   return in_wide(composed, q, repeated(k, q.size(-3)), repeated(v, q.size(-3)));
                 });
}

}  // namespace loom
