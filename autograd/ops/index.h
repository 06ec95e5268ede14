// Reading and writing by position. Index tensors are i64; index_select and embedding take i32 too.
#pragma once

#include <vector>

#include <loom/tensor/tensor.h>

namespace loom {

Tensor index_select(const Tensor& x, int dim, const Tensor& index);                     // index [n]
Tensor index_add(const Tensor& x, int dim, const Tensor& index, const Tensor& source);  // a copy of x, added to
Tensor gather(const Tensor& x, int dim, const Tensor& index);
Tensor scatter(const Tensor& x, int dim, const Tensor& index, const Tensor& source);  // a copy of x, written to
Tensor scatter_add(const Tensor& x, int dim, const Tensor& index, const Tensor& source);
Tensor take_along_dim(const Tensor& x, const Tensor& index, int dim);  // gather, broadcasting
// weight [n, d] -> [.., d] for index [..]. Rows at padding_idx get no gradient (none: -1).
Tensor embedding(const Tensor& index, const Tensor& weight, int64_t padding_idx = -1);
Tensor one_hot(const Tensor& index, int64_t classes = -1);         // i64
Tensor nonzero(const Tensor& x);                                   // [count, rank]
Tensor masked_select(const Tensor& x, const Tensor& mask);         // 1-d
Tensor index(const Tensor& x, const std::vector<Index>& indices);  // x.index({...})
// A copy of x with values written (or added) at the indices.
Tensor index_put(const Tensor& x, const std::vector<Index>& indices, const Tensor& values, bool accumulate = false);
// The same in x's own memory, not recorded: x.index_put_({...}, values).
void index_put_into(const Tensor& x, const std::vector<Index>& indices, const Tensor& values, bool accumulate);

}  // namespace loom
