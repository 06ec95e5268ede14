#include <loom/nn/embedding.h>

#include <loom/autograd/ops/index.h>
#include <loom/nn/init.h>
#include <loom/nn/module_range.h>

namespace loom::nn {

namespace {

int64_t padding_row(const std::optional<int64_t>& given, int64_t rows) {
  if (!given) return -1;
  check(*given >= -rows && *given < rows, "Embedding: padding_idx ", *given, " is out of range for ", rows,
        " embeddings");
  return *given < 0 ? *given + rows : *given;
}

}  // namespace

Embedding::Embedding(int64_t num_embeddings, int64_t embedding_dim, const EmbeddingOptions& options)
    : weight(uninitialized({num_embeddings, embedding_dim}, options)),
      padding_idx(padding_row(options.padding_idx, num_embeddings)) {
  if (!context().skip_init) reset_parameters();
}

void Embedding::reset_parameters() const {
  init::normal_(weight);
  const NoGrad no_grad;
  if (padding_idx >= 0) weight[padding_idx].zero_();
}

Tensor Embedding::operator()(const Tensor& index) const {
  const ModuleRange range(*this);
  return embedding(index, weight, padding_idx);
}

}  // namespace loom::nn
