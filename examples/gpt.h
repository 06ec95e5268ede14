// GPT-2 (Radford et al. 2019): a decoder-only transformer with norms before each part, learned positions and the token
// table also as the output layer. Names and layouts of the weights are those of Hugging Face's gpt2.
#pragma once

#include <cmath>
#include <vector>

#include <loom/loom.h>
#include <loom/nn/dropout.h>
#include <loom/nn/embedding.h>
#include <loom/nn/init.h>
#include <loom/nn/layer_norm.h>

namespace loom {

struct GptConfig {
  int64_t vocabulary = 0, block_size = 128;  // block_size: the tokens that a prediction can look back on
  int64_t n_layer = 4, n_head = 4, n_embd = 128;
  double dropout = 0;
  bool checkpoint_activations = false;  // compute blocks again at backward rather than keep what is inside them
};

// x W + b with a W of [in, out], as GPT-2's files have it.
struct Conv1D {
  Parameter weight, bias;

  Conv1D(int64_t in, int64_t out, double deviation) : weight(empty({in, out})), bias(zeros({out})) {
    if (!context().skip_init) nn::init::normal_(weight, 0, deviation);
  }
  Tensor operator()(const Tensor& x) const { return linear(x, weight.t(), bias); }
  LOOM_MEMBERS(weight, bias)
};

// What writes into the residual stream, 2 parts a block, starts smaller, so that the stream's variance does not grow
// with the depth.
inline double residual_deviation(const GptConfig& c) { return 0.02 / std::sqrt(2 * static_cast<double>(c.n_layer)); }

struct GptAttention {
  int64_t heads;
  Conv1D c_attn, c_proj;
  nn::Dropout dropout;

  explicit GptAttention(const GptConfig& c)
      : heads(c.n_head),
        c_attn(c.n_embd, 3 * c.n_embd, 0.02),
        c_proj(c.n_embd, c.n_embd, residual_deviation(c)),
        dropout(c.dropout) {}
  Tensor operator()(const Tensor& x) const {
    const int64_t batch = x.size(0), length = x.size(1), width = x.size(2);
    const auto split = [&](const Tensor& part) {
      return part.reshape({batch, length, heads, width / heads}).transpose(1, 2);
    };
    const std::vector<Tensor> parts = chunk(c_attn(x), 3, 2);
    const Tensor y = scaled_dot_product_attention(split(parts[0]), split(parts[1]), split(parts[2]),
                                                  {.dropout = dropout.training ? dropout.p : 0, .is_causal = true});
    return dropout(c_proj(y.transpose(1, 2).reshape({batch, length, width})));
  }
  LOOM_MEMBERS(c_attn, c_proj, dropout)
};

struct GptMlp {
  Conv1D c_fc, c_proj;
  nn::Dropout dropout;

  explicit GptMlp(const GptConfig& c)
      : c_fc(c.n_embd, 4 * c.n_embd, 0.02), c_proj(4 * c.n_embd, c.n_embd, residual_deviation(c)), dropout(c.dropout) {}
  Tensor operator()(const Tensor& x) const {  // c_proj(gelu_tanh(c_fc(x)))
    return dropout(gelu_mlp(x, c_fc.weight.t(), c_fc.bias, c_proj.weight.t(), c_proj.bias));
  }
  LOOM_MEMBERS(c_fc, c_proj, dropout)
};

struct GptBlock {
  nn::LayerNorm ln_1;
  GptAttention attn;
  nn::LayerNorm ln_2;
  GptMlp mlp;

  explicit GptBlock(const GptConfig& c) : ln_1(c.n_embd), attn(c), ln_2(c.n_embd), mlp(c) {}
  Tensor operator()(const Tensor& x) const {
    const auto [stream, normal] = ln_2.join(x, attn(ln_1(x)));
    return stream + mlp(normal);
  }
  LOOM_MEMBERS(ln_1, attn, ln_2, mlp)
};

struct Gpt {
  GptConfig config;
  nn::Embedding wte, wpe;
  nn::Dropout dropout;
  std::vector<GptBlock> h;
  nn::LayerNorm ln_f;

  explicit Gpt(const GptConfig& c)
      : config(c), wte(c.vocabulary, c.n_embd), wpe(c.block_size, c.n_embd), dropout(c.dropout), ln_f(c.n_embd) {
    if (!context().skip_init)
      for (const auto* table : {&wte, &wpe}) nn::init::normal_(table->weight, 0, 0.02);
    for (int64_t i = 0; i < c.n_layer; ++i) h.emplace_back(c);
  }
  // Tokens (i64) [N, T] -> what follows each of them: scores [N, T, vocabulary].
  Tensor operator()(const Tensor& tokens) const { return linear(hidden(tokens), wte.weight); }
  // What follows the last of them: scores [N, vocabulary].
  Tensor next(const Tensor& tokens) const { return linear(hidden(tokens).select(1, -1), wte.weight); }
  LOOM_MEMBERS(wte, wpe, dropout, h, ln_f)

 private:
  Tensor hidden(const Tensor& tokens) const {
    Tensor x = dropout(wte(tokens) + wpe.weight.narrow(0, 0, tokens.size(1)));
    for (const GptBlock& block : h) x = config.checkpoint_activations ? checkpoint(block, x) : block(x);
    return ln_f(x);
  }
};

}  // namespace loom
