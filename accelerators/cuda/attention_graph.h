// Attention as graphs of cuDNN, in the patterns that its fused kernels are found by.
#pragma once

#include <loom/accelerators/cuda/graph.h>

namespace loom::cuda {

// f16 or bf16. Shapes [batch, heads, length, width], k and v with key_heads, each of which several heads of q share;
// strides of each operand in memory, the last one 1.
struct AttentionCall {
  DType dtype = DType::bf16;
  int64_t batch = 1, heads = 1, key_heads = 1, queries = 1, keys = 1, width = 1, columns = 1;
  Dims q, k, v, y;      // strides
  Dims dq, dk, dv, dy;  // of the gradients
  float scale = 1;
  bool causal = false;
  bool any_order = false;  // gradient: precision.h
  // What is added to scores, of f32 or of the operands' type: [batch or 1, heads or 1, queries, keys], and its strides;
  // empty: nothing.
  DType mask_type = DType::f32;
  Dims mask, mask_strides;
  double keep = 1;  // the probability that a weight is kept; the others are dropped
};

// Memory: q, k, v, y, lse [batch, heads, queries, 1] of f32, dense; the mask, if any; where weights are dropped seed
// and offset, one i64 each.
Graph attention_graph(const AttentionCall& call);

// Memory: q, k, v, y, lse, dy, dq, dk, dv; mask, seed and offset as above; room for [batch, heads, queries, 1] of f32;
// in any order also for [batch, heads, queries, width] of f32.
Graph attention_grad_graph(const AttentionCall& call);

}  // namespace loom::cuda
