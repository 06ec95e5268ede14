// A text's tokens as samples of a language model: x, a block of consecutive tokens, and y, the token after each of
// them.
#pragma once

#include <cstdint>
#include <tuple>

#include <loom/tensor/tensor.h>

namespace loom::data {

// The text cut into blocks, in order; what is left at its end is not a block. Evaluation: every block once.
class TokenBlocks {
 public:
  TokenBlocks(const Tensor& tokens, int64_t block_size);  // tokens: i64 [n]
  int64_t size() const { return (tokens_.numel() - 1) / block_size_; }
  std::tuple<Tensor, Tensor> get(int64_t index) const;  // i64 [block_size] each, views of the tokens

 private:
  Tensor tokens_;
  int64_t block_size_;
};

// Blocks that begin anywhere, drawn anew by each sample of each epoch; an epoch is as long as one likes. The order of
// the samples does not matter, so a loader need not shuffle.
class RandomTokenBlocks {
 public:
  RandomTokenBlocks(const Tensor& tokens, int64_t block_size, int64_t samples);
  int64_t size() const { return samples_; }
  std::tuple<Tensor, Tensor> get(int64_t index) const;

 private:
  Tensor tokens_;
  int64_t block_size_, samples_;
};

}  // namespace loom::data
