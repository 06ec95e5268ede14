#include <algorithm>
#include <ostream>

#include <loom/accelerators/dims.h>

namespace loom {

std::string to_string(const Dims& dims) {
  std::string out = "[";
  for (int i = 0; i < dims.size(); ++i) out += (i ? ", " : "") + std::to_string(dims[i]);
  return out + "]";
}

Dims row_major_strides(const Dims& shape) {
  Dims strides = Dims::filled(shape.size(), 1);
  for (int i = shape.size() - 2; i >= 0; --i) strides[i] = strides[i + 1] * std::max<int64_t>(shape[i + 1], 1);
  return strides;
}

Dims batch_dims(const Dims& shape) { return Dims(std::span(shape.begin(), shape.end() - 2)); }

Dims with_matrix(const Dims& batch, int64_t rows, int64_t columns) {
  Dims out = batch;
  out.push_back(rows);
  out.push_back(columns);
  return out;
}

std::ostream& operator<<(std::ostream& out, const Dims& dims) { return out << to_string(dims); }

}  // namespace loom
