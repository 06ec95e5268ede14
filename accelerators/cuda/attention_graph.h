// Attention without a mask as graphs of cuDNN, in the patterns that its fused kernels are found by.
#pragma once

#include <loom/accelerators/cuda/graph.h>

namespace loom::cuda {

// f16 or bf16. Shapes [batch, heads, length, width]; strides of each operand in memory, the last one 1.
struct AttentionCall {
  DType dtype = DType::bf16;
  int64_t batch = 1, heads = 1, queries = 1, keys = 1, width = 1, columns = 1;
  Dims q, k, v, y;      // strides
  Dims dq, dk, dv, dy;  // of the gradients
  float scale = 1;
  bool causal = false;
  bool any_order = false;  // gradient: precision.h
};

// Memory: q, k, v, y, lse [batch, heads, queries, 1] of f32, dense.
Graph attention_graph(const AttentionCall& call);

// Memory: q, k, v, y, lse, dy, dq, dk, dv, and room for [batch, heads, queries, 1] of f32; in any order also for
// [batch, heads, queries, width] of f32.
Graph attention_grad_graph(const AttentionCall& call);

}  // namespace loom::cuda
