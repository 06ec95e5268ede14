// Views and rearrangements. The first group shares memory with its argument; members of Tensor call these.
#pragma once

#include <initializer_list>
#include <optional>
#include <vector>

#include <loom/tensor/tensor.h>

namespace loom {

Tensor reshape(const Tensor& x, const Dims& shape);  // copies where no view exists; one extent may be -1
Tensor flatten(const Tensor& x, int start_dim = 0, int end_dim = -1);
Tensor unflatten(const Tensor& x, int dim, const Dims& sizes);
Tensor transpose(const Tensor& x, int dim0, int dim1);
Tensor permute(const Tensor& x, const Dims& dims);
Tensor movedim(const Tensor& x, int source, int destination);
Tensor squeeze(const Tensor& x);           // all extents of 1
Tensor squeeze(const Tensor& x, int dim);  // x itself where the extent is not 1
Tensor unsqueeze(const Tensor& x, int dim);
Tensor expand(const Tensor& x, const Dims& shape);  // -1 keeps an extent
Tensor slice(const Tensor& x, int dim, std::optional<int64_t> start, std::optional<int64_t> stop, int64_t step = 1);
Tensor narrow(const Tensor& x, int dim, int64_t start, int64_t length);
Tensor select(const Tensor& x, int dim, int64_t index);
Tensor diagonal(const Tensor& x, int64_t offset = 0, int dim1 = 0, int dim2 = 1);
std::vector<Tensor> split(const Tensor& x, int64_t size, int dim = 0);  // pieces of `size`, the last smaller
std::vector<Tensor> split(const Tensor& x, const std::vector<int64_t>& sizes, int dim = 0);
inline std::vector<Tensor> split(const Tensor& x, std::initializer_list<int64_t> sizes, int dim = 0) {
  return split(x, std::vector<int64_t>(sizes), dim);  // {2} is one piece, not pieces of 2
}
std::vector<Tensor> chunk(const Tensor& x, int64_t chunks, int dim = 0);
std::vector<Tensor> unbind(const Tensor& x, int dim = 0);

Tensor contiguous(const Tensor& x);
Tensor clone(const Tensor& x);
Tensor cat(const std::vector<Tensor>& tensors, int dim = 0);
Tensor concat(const std::vector<Tensor>& tensors, int dim = 0);  // cat by its other name
Tensor stack(const std::vector<Tensor>& tensors, int dim = 0);
Tensor repeat(const Tensor& x, const Dims& repeats);
Tensor repeat_interleave(const Tensor& x, int64_t repeats, int dim);
Tensor flip(const Tensor& x, const Dims& dims);
Tensor roll(const Tensor& x, int64_t shift, int dim);
Tensor triu(const Tensor& x, int64_t diagonal = 0);
Tensor tril(const Tensor& x, int64_t diagonal = 0);
// Constant padding, {last low, last high, second-to-last low, ...} as torch.nn.functional.pad; negative amounts crop.
Tensor pad(const Tensor& x, const std::vector<int64_t>& amounts, double value = 0);

}  // namespace loom
