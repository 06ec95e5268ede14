// What the raw operations share: results to write to, inputs brought to a common dtype, device and shape, and the
// checks before memory is written in place.
#pragma once

#include <cstddef>
#include <string_view>

#include <loom/tensor/raw.h>

namespace loom::raw {

// A dense tensor of undefined contents. Throws where an extent is negative ("op: extent -1 at dimension 0 is negative")
// or the bytes cannot be counted.
Tensor uninitialized(std::string_view op, const Dims& shape, DType dtype, Device device);

// The same with channels last.
Tensor uninitialized_image(std::string_view op, const Dims& shape, DType dtype, Device device);

// Elements of x where they lie as those of a new tensor; 0: otherwise, or there are none.
int64_t dense_count(const Tensor::Body& x);
// A tensor like x, of which this is dense_count; its contents are undefined.
Tensor uninitialized_as(const Tensor::Body& x, int64_t count);
// Where x's elements begin.
inline std::byte* start_of(const Tensor::Body& x) {
  return static_cast<std::byte*>(x.storage->data()) + x.offset * static_cast<int64_t>(item_size(x.dtype));
}

// x's memory under another shape; `offset` from the start of the storage. Checks nothing.
Tensor view_of(const Tensor& x, const Dims& shape, const Dims& strides, int64_t offset);

// The view repeated to `shape`, which it broadcasts to.
View broadcast(const View& x, const Dims& shape);
// The view's first `shape[d]` positions in each dimension d.
View narrowed(View x, const Dims& shape);
// A 0-dimensional tensor seen as one of shape [1]; any other as it is. PyTorch takes dimension 0 of a 0-dimensional
// one.
Tensor at_least_1d(const Tensor& x);

// Where an op on a and b runs. 0-dimensional CPU tensors go along with any device.
Device common_device(std::string_view op, const Tensor& a, const Tensor& b);
void check_index(std::string_view op, const Tensor& index, const Tensor& x);  // i64, on x's device

// The element of a 0-dimensional CPU tensor.
double number_at(const View& x);

// Every element becomes `value`, cut to an integer for integral dtypes; refuses numbers out of their range.
void fill(std::string_view op, const Tensor& y, double value);
// Refuses to write where several elements share one place.
void check_writable(std::string_view op, const Tensor& y);
// PyTorch's rule for results in place: floating never becomes integral, nor anything else boolean.
void check_storable(std::string_view op, DType result, const Tensor& y);
// True where writing y could change what a kernel has yet to read from x: their memory meets and they are not the same
// elements in the same order.
bool overlaps(const View& y, const View& x);

// An input of a kernel: x in a dtype and on a device. A 0-dimensional CPU tensor is converted on the stack, as numbers
// are frequent and small.
class Operand {
 public:
  Operand(const Tensor& x, DType dtype, Device device);
  Operand(const Operand&) = delete;
  Operand& operator=(const Operand&) = delete;
  const View& view() const { return view_; }
  // The view repeated to `shape`, which it broadcasts to.
  const View& broadcast_to(const Dims& shape) {
    if (!(view_.shape == shape)) view_ = broadcast(view_, shape);
    return view_;
  }

 private:
  View view_;
  Tensor converted_;
  alignas(8) std::byte number_[8];
};

}  // namespace loom::raw
