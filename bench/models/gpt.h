// A decoder-only transformer in GPT-2's form (Radford et al. 2019): learned positions, norms before each part, GELU,
// the token table also as the output layer. peers/models/gpt.py is the twin.
// width=128 depth=4 heads=4 context=128 vocabulary=65; gelu_tanh=1: its approximation by tanh, as GPT-2 has it
#pragma once

#include <vector>

#include <loom/loom.h>
#include <loom/nn/embedding.h>
#include <loom/nn/layer_norm.h>
#include <loom/nn/linear.h>
#include <loom/nn/optim/adam.h>

#include "../row.h"
#include "work.h"

namespace bench {

struct GptBlock {
  int64_t heads;
  bool gelu_tanh;
  loom::nn::LayerNorm ln1, ln2;
  loom::nn::Linear qkv, out, up, down;

  GptBlock(int64_t width, int64_t heads_, bool gelu_tanh_)
      : heads(heads_),
        gelu_tanh(gelu_tanh_),
        ln1(width),
        ln2(width),
        qkv(width, 3 * width),
        out(width, width),
        up(width, 4 * width),
        down(4 * width, width) {}

  loom::Tensor attend(const loom::Tensor& x) const {
    const int64_t batch = x.size(0), length = x.size(1), width = x.size(2);
    const auto split = [&](const loom::Tensor& part) {
      return part.reshape({batch, length, heads, width / heads}).transpose(1, 2);
    };
    const std::vector<loom::Tensor> parts = loom::chunk(qkv(x), 3, 2);
    const loom::Tensor y =
        loom::scaled_dot_product_attention(split(parts[0]), split(parts[1]), split(parts[2]), {.is_causal = true});
    return out(y.transpose(1, 2).reshape({batch, length, width}));
  }
  loom::Tensor operator()(const loom::Tensor& x) const {
    const auto [stream, normal] = ln2.join(x, attend(ln1(x)));
    if (gelu_tanh) return stream + loom::gelu_mlp(normal, up.weight, up.bias, down.weight, down.bias);
    return stream + down(loom::gelu(up(normal)));
  }
  LOOM_MEMBERS(ln1, ln2, qkv, out, up, down)
};

struct Gpt {
  int64_t width, heads, context, vocabulary;
  loom::nn::Embedding tokens, positions;
  std::vector<GptBlock> blocks;
  loom::nn::LayerNorm norm;
  using Optimizer = loom::optim::AdamW;
  static constexpr loom::optim::AdamWOptions settings{.lr = 3e-4};

  explicit Gpt(const Options& options)
      : width(options.number("width", 128)),
        heads(options.number("heads", 4)),
        context(options.number("context", 128)),
        vocabulary(options.number("vocabulary", 65)),
        tokens(vocabulary, width),
        positions(context, width),
        norm(width) {
    const loom::NoGrad no_grad;
    for (const auto* table : {&tokens, &positions}) loom::Tensor(table->weight).mul_(0.02);
    for (int64_t i = 0; i < options.number("depth", 4); ++i)
      blocks.emplace_back(width, heads, options.flag("gelu_tanh"));
  }
  loom::Tensor operator()(const loom::Tensor& index) const {
    loom::Tensor x = tokens(index) + positions.weight.narrow(0, 0, index.size(1));
    for (const GptBlock& block : blocks) x = block(x);
    return loom::linear(norm(x), tokens.weight).flatten(0, 1);
  }
  LOOM_MEMBERS(tokens, positions, blocks, norm)

  Samples samples(int64_t count) const {
    const loom::Tensor text = loom::randint(0, vocabulary, {count, context + 1});
    return {text.narrow(1, 0, context).contiguous(), text.narrow(1, 1, context).contiguous()};
  }
  Work work() const {
    const auto w = static_cast<double>(width), length = static_cast<double>(context);
    const double attention = w * (length + 1);  // scores and sums of a causal row: half of the context on average
    const double token =
        static_cast<double>(blocks.size()) * (12 * w * w + attention) + w * static_cast<double>(vocabulary);
    // 6 N + 12 L C T a token (Chowdhery et al. 2022, appendix B): N parameters, L layers of width C, context T
    const double nominal = 6 * static_cast<double>(loom::nn::parameter_count(*this)) +
                           12 * static_cast<double>(blocks.size()) * w * length;
    return {.multiply_adds = length * token, .first = 0, .nominal = length * nominal, .units = length};
  }
};

}  // namespace bench
