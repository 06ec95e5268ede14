// Work along one dimension: a walk over the lines, which begin at the elements of the views without that dimension.
#pragma once

#include <loom/accelerators/cuda/layout.h>

namespace loom::cuda {

inline View without(const View& v, int dim) {
  View rest = v;
  rest.shape.erase(dim);
  rest.strides.erase(dim);
  return rest;
}

inline int64_t byte_stride(const View& v, int dim) { return v.strides[dim] * static_cast<int64_t>(item_size(v.dtype)); }

}  // namespace loom::cuda
