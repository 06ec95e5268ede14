// Multi-head attention (Vaswani et al. 2017).
#pragma once

#include <utility>

#include <loom/nn/linear.h>
#include <loom/nn/module.h>

namespace loom::nn {

struct MultiheadAttentionOptions {
  double dropout = 0;  // on the attention weights, in training
  bool bias = true;
  std::optional<int64_t> kdim = {}, vdim = {};  // extents of keys and values where they differ from embed_dim
  bool batch_first = false;
  std::optional<DType> dtype = {};
  std::optional<Device> device = {};
};

struct AttentionCall {
  Tensor key_padding_mask = {};  // [N, S]: boolean, true: this key is left out; or added to the scores
  bool need_weights = true;      // return the weights (slower)
  Tensor attn_mask = {};         // [L, S] or [N * heads, L, S]: boolean, true: may not attend; or added to the scores
  bool average_attn_weights = true;
  bool is_causal = false;  // position i attends to j <= i
};

// query [L, N, embed_dim], key [S, N, kdim], value [S, N, vdim] -> [L, N, embed_dim] and the weights [N, L, S]
// ([N, heads, L, S] where not averaged, undefined where not needed). batch_first: N first. Without a batch: no N.
struct MultiheadAttention {
  Parameter in_proj_weight;                               // [3 embed_dim, embed_dim] for queries, keys and values, or
  Parameter q_proj_weight, k_proj_weight, v_proj_weight;  // [embed_dim, ..] where kdim or vdim is given
  Parameter in_proj_bias;
  Linear out_proj;
  int64_t num_heads;
  double dropout;
  bool batch_first;
  Training training;

  MultiheadAttention(int64_t embed_dim, int64_t num_heads, const MultiheadAttentionOptions& options = {});
  void reset_parameters() const;
  std::pair<Tensor, Tensor> operator()(const Tensor& query, const Tensor& key, const Tensor& value,
                                       const AttentionCall& call = {}) const;
  LOOM_MEMBERS(in_proj_weight, q_proj_weight, k_proj_weight, v_proj_weight, in_proj_bias, out_proj, training)

 private:
  std::array<Tensor, 3> project(const Tensor& q, const Tensor& k, const Tensor& v) const;
};

}  // namespace loom::nn
