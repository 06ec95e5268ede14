#include <loom/data/token_blocks.h>

#include <loom/tensor/create.h>
#include <loom/tensor/raw.h>

namespace loom::data {

namespace {

void check_tokens(const char* what, const Tensor& tokens, int64_t block_size) {
  check(tokens.dtype() == i64 && tokens.dim() == 1, what, ": tokens are ", tokens.dtype(), " of shape ", tokens.shape(),
        ", expects i64 of shape [n]");
  check(block_size >= 1, what, ": block_size is ", block_size, ", expects at least 1");
  check(tokens.numel() > block_size, what, ": ", tokens.numel(), " tokens are fewer than a block of ", block_size,
        " and the token after it");
}

std::tuple<Tensor, Tensor> block_at(const Tensor& tokens, int64_t begin, int64_t block_size) {
  const auto from = [&](int64_t start) { return raw::slice(tokens, 0, start, start + block_size, 1); };
  return {from(begin), from(begin + 1)};
}

}  // namespace

TokenBlocks::TokenBlocks(const Tensor& tokens, int64_t block_size) : tokens_(tokens), block_size_(block_size) {
  check_tokens("TokenBlocks", tokens, block_size);
}

std::tuple<Tensor, Tensor> TokenBlocks::get(int64_t index) const {
  check(index >= 0 && index < size(), "TokenBlocks: index ", index, " is out of range for ", size(), " blocks");
  return block_at(tokens_, index * block_size_, block_size_);
}

RandomTokenBlocks::RandomTokenBlocks(const Tensor& tokens, int64_t block_size, int64_t samples)
    : tokens_(tokens), block_size_(block_size), samples_(samples) {
  check_tokens("RandomTokenBlocks", tokens, block_size);
  check(samples >= 1, "RandomTokenBlocks: samples is ", samples, ", expects at least 1");
}

std::tuple<Tensor, Tensor> RandomTokenBlocks::get(int64_t index) const {
  check(index >= 0 && index < size(), "RandomTokenBlocks: index ", index, " is out of range for ", size(), " samples");
  const int64_t begins = tokens_.numel() - block_size_;  // the last block ends before the last token
  return block_at(tokens_, randint(0, begins, {1}, {DType::i64, Device::cpu}).item<int64_t>(), block_size_);
}

}  // namespace loom::data
