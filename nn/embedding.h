// Vectors looked up by number.
#pragma once

#include <loom/nn/module.h>

namespace loom::nn {

struct EmbeddingOptions {
  std::optional<int64_t> padding_idx = {};  // this row starts at zero and gets no gradient; negative: from the end
  std::optional<DType> dtype = {};
  std::optional<Device> device = {};
};

// index [..] (i64) -> [.., embedding_dim]
struct Embedding {
  Parameter weight;     // [num_embeddings, embedding_dim]
  int64_t padding_idx;  // -1: none

  Embedding(int64_t num_embeddings, int64_t embedding_dim, const EmbeddingOptions& options = {});
  void reset_parameters() const;
  Tensor operator()(const Tensor& index) const;
  LOOM_MEMBERS(weight)
};

}  // namespace loom::nn
