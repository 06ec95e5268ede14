// The one tensor type: a handle to an n-dimensional, row-major array. Copying a handle shares the array; views are
// O(1).
//
// Names, dimension order, defaults and results are PyTorch's. Functions are declared here as members where they read
// naturally so; those that take part in differentiation are defined in autograd/.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <iosfwd>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <loom/accelerators/view.h>
#include <loom/tensor/storage.h>

namespace loom {

namespace autograd {
struct Meta;  // what a leaf knows of its gradient
class Node;   // what computed a tensor
void add_reference(const Node& node) noexcept;
void drop_reference(const Node& node) noexcept;
}  // namespace autograd
class Tensor;
class Parameter;

// start:stop:step of Python; negative numbers count from the end, none means open. step >= 1.
struct Slice {
  std::optional<int64_t> start, stop;
  int64_t step = 1;
};
struct NewAxis {};   // None of x[None]
struct Ellipsis {};  // ... of x[..., 0]
inline constexpr NewAxis new_axis{};
inline constexpr Ellipsis ellipsis{};
// One entry of x.index({0, Slice{1, 3}, mask}): a position, a slice, a new axis, an ellipsis, or a tensor of positions
// (i64) or a mask (boolean).
struct Index : std::variant<int64_t, Slice, NewAxis, Ellipsis, std::shared_ptr<const Tensor>> {
  template <class T>
    requires(std::is_integral_v<T> && !std::is_same_v<T, bool>)
  Index(T position) : variant(static_cast<int64_t>(position)) {}  // NOLINT: all of these are written as they are
  Index(Slice slice) : variant(slice) {}                          // NOLINT
  Index(NewAxis axis) : variant(axis) {}                          // NOLINT
  Index(Ellipsis rest) : variant(rest) {}                         // NOLINT
  Index(const Tensor& positions_or_mask);                         // NOLINT
};

// dtype and device of a new tensor; what is not given is the rank's default (f32 on cpu unless a Fabric says
// otherwise).
struct TensorOptions {
  std::optional<DType> dtype;
  std::optional<Device> device;
  TensorOptions() = default;
  TensorOptions(DType t) : dtype(t) {}                       // NOLINT: zeros({2, 3}, f64)
  TensorOptions(Device d) : device(d) {}                     // NOLINT: zeros({2, 3}, Device::cuda)
  TensorOptions(DType t, Device d) : dtype(t), device(d) {}  // NOLINT
};

class Tensor {
 public:
  struct Body final : Counted, pool::Pooled {
    Ref<Storage> storage;
    Dims shape, strides;
    int64_t offset = 0;  // in elements
    DType dtype = DType::f32;
    bool wrapped_number = false;  // made from a C++ number: yields to the other operand's dtype
    bool autocast = false;        // stands for a tensor of graph_dtype, whose place in the graph it has
    DType graph_dtype = DType::f32;
    uint32_t slot = 0;                     // which of the node's outputs it is
    Ref<autograd::Node> node;              // what computed it; null for leaves and constants
    std::shared_ptr<autograd::Meta> meta;  // leaves, and what retains its gradient; null for all others

    friend void drop_reference(const Body& body) noexcept {
      if (body.drop()) Tensor::destroy(&body);
    }
  };
  static void destroy(const Body* body) noexcept;

  Tensor() = default;  // undefined
  // A number where a tensor is expected: 0-dimensional, promoted as PyTorch promotes Python numbers.
  template <class T>
    requires std::is_arithmetic_v<T>
  Tensor(T value) : Tensor(wrap_number(value)) {}  // NOLINT: a * 2.0
  explicit Tensor(Ref<Body> body) : body_(std::move(body)) {}

  bool defined() const { return static_cast<bool>(body_); }
  explicit operator bool() const = delete;  // use defined() or item<bool>()
  const Dims& shape() const { return body().shape; }
  int64_t size(int dim) const;  // negative dims count from the end
  int dim() const { return body().shape.size(); }
  int64_t numel() const { return body().shape.numel(); }
  const Dims& strides() const { return body().strides; }
  DType dtype() const { return body().dtype; }
  Device device() const { return body().storage->device(); }
  bool is_contiguous() const;
  bool is_same(const Tensor& other) const { return body_ == other.body_; }
  uint64_t version() const { return body().storage->version(); }
  const Ref<Storage>& storage() const { return body().storage; }
  int64_t storage_offset() const { return body().offset; }

  // What kernels take. No gradient flows through it.
  operator View() const;  // NOLINT: tensors are passed to kernels as they are
  // Pointer to the first element; T must be the dtype's C++ type.
  template <class T>
  T* data() const {
    check_type(dtype_of<T>(), "data");
    return static_cast<T*>(raw_data());
  }
  // The elements of a contiguous CPU tensor.
  template <class T>
  std::span<T> span() const {
    check_host_dense();
    return {data<T>(), static_cast<size_t>(numel())};
  }
  // The value of a one-element tensor, converted.
  template <class T>
  T item() const {
    static_assert(std::is_arithmetic_v<T>);
    if constexpr (std::is_same_v<T, bool>)
      return item_number() != 0;  // 0.5 is true
    else if constexpr (std::is_integral_v<T>)
      return static_cast<T>(item_integer());
    else
      return static_cast<T>(item_number());
  }
  // All elements in row-major order, converted to T; any strides, any device.
  template <class T>
  std::vector<T> to_vector() const;

  // Gradient (autograd/).
  bool requires_grad() const;
  Tensor& requires_grad_(bool value = true);  // leaves only; floating dtypes only
  bool is_leaf() const;
  const Tensor& grad() const;               // undefined when there is none; leaves (and retain_grad) only
  void set_grad(const Tensor& grad) const;  // replaces or (undefined) removes it
  void retain_grad() const;                 // keep .grad of a non-leaf
  Tensor detach() const;                    // shares memory and version, no graph
  void backward(const Tensor& gradient = {}, bool retain_graph = false, bool create_graph = false) const;
  // Called with the gradient of this tensor when it is complete, before it is used; may return a replacement.
  // Returns a number for remove_hook.
  uint64_t register_hook(std::function<std::optional<Tensor>(const Tensor&)> hook) const;
  void remove_hook(uint64_t number) const;

  // Conversions: the tensor itself when nothing changes, else a copy. Differentiable.
  Tensor to(DType dtype) const;
  // The host waits for the device only when the copy is the host's. non_blocking: not even then, and memory that is
  // pinned (pinned.h) is left to the device: neither is it to be written, nor the host's copy to be read, before the
  // stream has been waited for.
  Tensor to(Device device, bool non_blocking = false) const;
  Tensor contiguous() const;
  Tensor clone() const;

  // Views (reshape copies where no view exists). Differentiable.
  Tensor reshape(Dims shape) const;  // one extent may be -1
  Tensor view(Dims shape) const;     // throws where reshape would copy
  Tensor flatten(int start_dim = 0, int end_dim = -1) const;
  Tensor transpose(int dim0, int dim1) const;
  Tensor t() const;   // 2-d
  Tensor mT() const;  // swaps the last two dims
  Tensor permute(Dims dims) const;
  Tensor squeeze() const;
  Tensor squeeze(int dim) const;
  Tensor unsqueeze(int dim) const;
  Tensor expand(Dims shape) const;  // -1 keeps an extent
  Tensor select(int dim, int64_t index) const;
  Tensor narrow(int dim, int64_t start, int64_t length) const;
  Tensor slice(int dim, std::optional<int64_t> start, std::optional<int64_t> stop, int64_t step = 1) const;
  Tensor diagonal(int64_t offset = 0, int dim1 = 0, int dim2 = 1) const;
  Tensor operator[](int64_t index) const { return select(0, index); }
  // x.index({0, Slice{1, 3}, ellipsis, at(mask)}): PyTorch's indexing; a view when no tensor is among the indices.
  Tensor index(const std::vector<Index>& indices) const;
  Tensor index_put_(const std::vector<Index>& indices, const Tensor& values, bool accumulate = false) const;

  // Reductions; dims empty: all. Differentiable.
  Tensor sum(Dims dims = {}, bool keepdim = false) const;
  Tensor mean(Dims dims = {}, bool keepdim = false) const;
  Tensor var(Dims dims = {}, double correction = 1, bool keepdim = false) const;
  Tensor prod(Dims dims = {}, bool keepdim = false) const;
  Tensor norm(double p = 2, Dims dims = {}, bool keepdim = false) const;  // of vectors
  Tensor cumsum(int dim) const;
  std::pair<Tensor, Tensor> sort(int dim = -1, bool descending = false) const;  // stable; values, index
  Tensor gather(int dim, const Tensor& index) const;
  Tensor max() const;
  Tensor min() const;
  std::pair<Tensor, Tensor> max(int dim, bool keepdim = false) const;  // values, index
  std::pair<Tensor, Tensor> min(int dim, bool keepdim = false) const;
  Tensor argmax(std::optional<int> dim = {}, bool keepdim = false) const;
  Tensor argmin(std::optional<int> dim = {}, bool keepdim = false) const;
  Tensor all() const;
  Tensor any() const;
  Tensor matmul(const Tensor& other) const;
  Tensor softmax(int dim) const;

  // Elementwise functions of one argument (accelerators/elementwise.def), and in place.
#define UNARY(name, ...) \
  Tensor name() const;   \
  Tensor name##_() const;
#define STEP(name, ...) \
  Tensor name() const;  \
  Tensor name##_() const;
#define PREDICATE(name, ...) Tensor name() const;
#include <loom/accelerators/elementwise.def>
  Tensor pow(const Tensor& exponent) const;
  Tensor clamp(double min, double max) const;

  // In place. Refused while gradients are recorded if this tensor or an argument requires grad: use NoGrad or the
  // function that returns a new tensor. The argument is broadcast to this shape; the result is converted to this dtype.
  Tensor add_(const Tensor& other, double alpha = 1) const;
  Tensor sub_(const Tensor& other, double alpha = 1) const;
  Tensor mul_(const Tensor& other) const;
  Tensor div_(const Tensor& other) const;
  Tensor pow_(const Tensor& exponent) const;
  Tensor lerp_(const Tensor& end, const Tensor& weight) const;                // += weight * (end - this)
  Tensor addcmul_(const Tensor& a, const Tensor& b, double value = 1) const;  // += value * a * b
  Tensor copy_(const Tensor& source, bool non_blocking = false) const;        // as in to()
  Tensor fill_(double value) const;
  Tensor zero_() const;
  Tensor clamp_(double min, double max) const;
  Tensor masked_fill_(const Tensor& mask, double value) const;
  Tensor uniform_(double low = 0, double high = 1) const;
  Tensor normal_(double mean = 0, double std = 1) const;
  Tensor bernoulli_(double probability = 0.5) const;
  Tensor index_add_(int dim, const Tensor& index, const Tensor& source) const;
  Tensor scatter_(int dim, const Tensor& index, const Tensor& source) const;
  Tensor scatter_add_(int dim, const Tensor& index, const Tensor& source) const;
  Tensor operator+=(const Tensor& other) const { return add_(other); }
  Tensor operator-=(const Tensor& other) const { return sub_(other); }
  Tensor operator*=(const Tensor& other) const { return mul_(other); }
  Tensor operator/=(const Tensor& other) const { return div_(other); }

  // Makes this handle's array be another's from now on, for everybody who shares it (module.to(), loading): shape,
  // dtype and memory are replaced, the place in the graph stays.
  void set_data(const Tensor& other) const;

  const Body& body() const {
    check(defined(), "the tensor is undefined (default-constructed or moved from)");
    return *body_;
  }
  Body& mutable_body() const {
    check(defined(), "the tensor is undefined (default-constructed or moved from)");
    return *body_;
  }
  const Ref<Body>& body_pointer() const { return body_; }

 private:
  static Tensor wrap_number(double value);
  static Tensor wrap_number(int64_t value);
  static Tensor wrap_number(bool value);
  template <class T>
  static Tensor wrap_number(T value) {
    if constexpr (std::is_floating_point_v<T>)
      return wrap_number(static_cast<double>(value));
    else
      return wrap_number(static_cast<int64_t>(value));
  }
  void* raw_data() const;
  void check_type(DType given, const char* what) const;
  void check_host_dense() const;
  int64_t item_integer() const;
  double item_number() const;

  Ref<Body> body_;
};

// The dtype that an operation on both computes in (torch.result_type): dtypes of tensors with dimensions win over those
// of 0-dimensional ones, and these over numbers, within a category (boolean < integral < floating).
DType result_type(const Tensor& a, const Tensor& b);
DType result_type(std::initializer_list<const Tensor*> operands);  // at least one; undefined ones do not count
// The common shape of both, extents of 1 repeated; throws "op: shapes [2, 3] and [2, 4] do not broadcast (dimension
// 1)".
Dims broadcast_shapes(std::string_view op, const Dims& a, const Dims& b);
// -rank <= dim < rank becomes 0 <= dim < rank; throws "op: dimension 3 is out of range for a tensor of rank 2".
int normalize_dim(std::string_view op, int dim, int rank);

std::string to_string(const Tensor& tensor);  // as PyTorch prints it
std::ostream& operator<<(std::ostream& out, const Tensor& tensor);

}  // namespace loom
