#include <loom/nn/attention.h>

#include <cmath>
#include <limits>

#include <loom/autograd/ops.h>
#include <loom/nn/init.h>
#include <loom/nn/module_range.h>

namespace loom::nn {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// A mask as numbers to be added to the scores.
Tensor additive(const Tensor& mask, const Tensor& like) {
  if (mask.dtype() != DType::boolean) return mask.to(like.dtype());
  return masked_fill(zeros(mask.shape(), {like.dtype(), like.device()}), mask, -infinity);
}

// All masks together, broadcasting to [N, heads, L, S]; undefined: none.
Tensor merged_mask(const AttentionCall& call, const Tensor& q, const Tensor& k) {
  const int64_t batch = q.size(0), heads = q.size(1), targets = q.size(2), sources = k.size(2);
  Tensor merged;
  const auto add_mask = [&](const Tensor& m) { merged = merged.defined() ? merged + m : m; };
  if (call.attn_mask.defined()) {
    const Dims shape = call.attn_mask.shape();
    const bool whole = shape == Dims{batch * heads, targets, sources};
    check(whole || shape == Dims{targets, sources}, "MultiheadAttention: attn_mask is ", shape, ", expected ",
          Dims{targets, sources}, " or ", Dims{batch * heads, targets, sources});
    const Tensor mask = additive(call.attn_mask, q);
    add_mask(whole ? reshape(mask, {batch, heads, targets, sources}) : mask);
  }
  if (call.key_padding_mask.defined()) {
    const Dims shape = call.key_padding_mask.shape();
    check(shape == Dims{batch, sources} || (batch == 1 && shape == Dims{sources}),
          "MultiheadAttention: key_padding_mask is ", shape, ", expected ", Dims{batch, sources});
    add_mask(reshape(additive(call.key_padding_mask, q), {batch, 1, 1, sources}));
  }
  if (call.is_causal && !call.attn_mask.defined() && (merged.defined() || call.need_weights))
    add_mask(additive(triu(ones({targets, sources}, {DType::boolean, q.device()}), 1), q));
  return merged;
}

Parameter projection(int64_t rows, int64_t columns, const MultiheadAttentionOptions& o) {
  return uninitialized({rows, columns}, o);
}

}  // namespace

MultiheadAttention::MultiheadAttention(int64_t embed_dim, int64_t heads, const MultiheadAttentionOptions& o)
    : out_proj(embed_dim, embed_dim, {o.bias, o.dtype, o.device}),
      num_heads(heads),
      dropout(o.dropout),
      batch_first(o.batch_first) {
  check(heads > 0 && embed_dim % heads == 0, "MultiheadAttention: embed_dim must be divisible by num_heads, got ",
        embed_dim, " and ", heads);
  if (o.kdim.value_or(embed_dim) == embed_dim && o.vdim.value_or(embed_dim) == embed_dim) {
    in_proj_weight = projection(3 * embed_dim, embed_dim, o);
  } else {
    q_proj_weight = projection(embed_dim, embed_dim, o);
    k_proj_weight = projection(embed_dim, o.kdim.value_or(embed_dim), o);
    v_proj_weight = projection(embed_dim, o.vdim.value_or(embed_dim), o);
  }
  if (o.bias) in_proj_bias = uninitialized({3 * embed_dim}, o);
  if (!context().skip_init) reset_parameters();
}

void MultiheadAttention::reset_parameters() const {
  for (const Parameter* weight : {&in_proj_weight, &q_proj_weight, &k_proj_weight, &v_proj_weight})
    if (weight->defined()) init::xavier_uniform_(*weight);
  if (in_proj_bias.defined()) {
    init::zeros_(in_proj_bias);
    init::zeros_(out_proj.bias);
  }
}

std::array<Tensor, 3> MultiheadAttention::project(const Tensor& q, const Tensor& k, const Tensor& v) const {
  const int64_t width = out_proj.weight.size(0);
  if (in_proj_weight.defined() && q.is_same(k) && k.is_same(v)) {
    const std::vector<Tensor> parts = chunk(linear(q, in_proj_weight, in_proj_bias), 3, -1);
    return {parts[0], parts[1], parts[2]};
  }
  std::vector<Tensor> weights = {q_proj_weight, k_proj_weight, v_proj_weight}, biases(3);
  if (in_proj_weight.defined()) weights = split(in_proj_weight, width, 0);
  if (in_proj_bias.defined()) biases = split(in_proj_bias, width, 0);
  return {linear(q, weights[0], biases[0]), linear(k, weights[1], biases[1]), linear(v, weights[2], biases[2])};
}

std::pair<Tensor, Tensor> MultiheadAttention::operator()(const Tensor& query, const Tensor& key, const Tensor& value,
                                                         const AttentionCall& call) const {
  const ModuleRange range(*this);
  check((query.dim() == 2 || query.dim() == 3) && key.dim() == query.dim() && value.dim() == query.dim(),
        "MultiheadAttention: expects query, key and value of 3 dimensions, or of 2 without a batch, got ",
        query.shape(), ", ", key.shape(), " and ", value.shape());
  const bool batched = query.dim() == 3;
  const auto batch_leading = [&](const Tensor& x) {
    return !batched ? unsqueeze(x, 0) : batch_first ? x : transpose(x, 0, 1);
  };
  const Tensor x = batch_leading(query);
  const bool self = query.is_same(key) && key.is_same(value);
  auto [q, k, v] = self ? project(x, x, x) : project(x, batch_leading(key), batch_leading(value));
  const auto by_head = [&](const Tensor& t) {
    return transpose(reshape(t, {t.size(0), t.size(1), num_heads, t.size(2) / num_heads}), 1, 2);
  };
  q = by_head(q), k = by_head(k), v = by_head(v);  // [N, heads, length, head]

  const double p = training ? dropout : 0;
  const Tensor mask = merged_mask(call, q, k);
  Tensor y, weights;
  if (call.need_weights) {
    const Tensor scores = matmul(q * (1 / std::sqrt(static_cast<double>(q.size(-1)))), k.mT());
    weights = loom::dropout(softmax(mask.defined() ? scores + mask : scores, -1), p);
    y = matmul(weights, v);
    if (call.average_attn_weights) weights = mean(weights, {1});
    if (!batched) weights = squeeze(weights, 0);
  } else {
    const bool causal = call.is_causal && !mask.defined();
    y = scaled_dot_product_attention(q, k, v, {.mask = mask, .dropout = p, .is_causal = causal});
  }
  y = transpose(y, 1, 2);
  y = out_proj(reshape(y, {y.size(0), y.size(1), out_proj.weight.size(1)}));
  return {!batched ? squeeze(y, 0) : batch_first ? y : transpose(y, 0, 1), weights};
}

}  // namespace loom::nn
