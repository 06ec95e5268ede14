// Members of Tensor that take part in differentiation.
#include <cmath>

#include <loom/autograd/compose.h>
#include <loom/autograd/engine.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/ops/speaking_as.h>
#include <loom/tensor/raw.h>

namespace loom {

using autograd::Meta;
using autograd::wide;

// Gradient.

bool Tensor::requires_grad() const { return autograd::requires_grad(*this); }

bool Tensor::is_leaf() const { return !body().node; }

Tensor& Tensor::requires_grad_(bool value) {
  check(is_leaf(), "requires_grad_: only leaves can be changed; this tensor was computed by ",
        is_leaf() ? "" : body().node->op->name, "; detach it first");
  check(!value || is_floating(dtype()), "requires_grad_: only floating tensors can require grad, this one is ",
        dtype());
  auto& meta = mutable_body().meta;
  if (!meta && value) meta = std::make_shared<Meta>();
  if (meta) meta->requires_grad = value;
  return *this;
}

const Tensor& Tensor::grad() const {
  static const Tensor none;
  const auto& meta = body().meta;
  return meta ? meta->grad : none;
}

void Tensor::set_grad(const Tensor& gradient) const {
  auto& meta = mutable_body().meta;
  if (!meta) {
    if (!gradient.defined()) return;
    meta = std::make_shared<Meta>();
  }
  if (gradient.defined())
    check(gradient.shape() == shape() && gradient.dtype() == dtype() && gradient.device() == device(),
          "set_grad: the gradient is ", gradient.dtype(), gradient.shape(), " on ", gradient.device(), ", the tensor ",
          dtype(), shape(), " on ", device());
  meta->grad = gradient;
}

void Tensor::retain_grad() const {
  check(requires_grad(), "retain_grad: the tensor does not require grad");
  if (is_leaf()) return;
  auto& meta = mutable_body().meta;
  if (!meta) meta = std::make_shared<Meta>();
  if (std::exchange(meta->retains_grad, true)) return;
  const std::weak_ptr<Meta> weak = meta;
  register_hook([weak](const Tensor& g) -> std::optional<Tensor> {
    if (const auto meta = weak.lock()) meta->grad = meta->grad.defined() ? add(meta->grad, g) : g;
    return {};
  });
}

Tensor Tensor::detach() const { return raw::alias(*this); }

void Tensor::backward(const Tensor& gradient, bool retain_graph, bool create_graph) const {
  loom::backward(*this, gradient, retain_graph, create_graph);
}

// Conversions and views.

Tensor Tensor::to(DType target) const {
  if (dtype() == target) return *this;
  const auto [x] = autograd::enter(autograd::ops::cast, *this);
  return autograd::record(autograd::ops::cast, raw::cast(x, target), {x},
                          [from = x.dtype()](const Tensor& g) { return autograd::Grads(g.to(from)); });
}

Tensor Tensor::to(Device target, bool non_blocking) const {
  if (device() == target) return *this;
  const auto [x] = autograd::enter(autograd::ops::to_device, *this);
  return autograd::record(autograd::ops::to_device, raw::to_device(x, target, non_blocking), {x},
                          [from = x.device()](const Tensor& g) { return autograd::Grads(g.to(from)); });
}

Tensor Tensor::contiguous() const { return loom::contiguous(*this); }
Tensor Tensor::clone() const { return loom::clone(*this); }
Tensor Tensor::reshape(Dims shape) const { return loom::reshape(*this, shape); }

Tensor Tensor::view(Dims shape) const {
  const Dims full = raw::infer_shape("view", shape, numel());
  check(raw::try_view(*this, full).has_value(), "view: shape ", this->shape(), " with strides ", strides(),
        " cannot be seen as ", full, " without a copy; use reshape");
  return loom::reshape(*this, full);
}

Tensor Tensor::flatten(int start_dim, int end_dim) const { return loom::flatten(*this, start_dim, end_dim); }
Tensor Tensor::transpose(int dim0, int dim1) const { return loom::transpose(*this, dim0, dim1); }

Tensor Tensor::t() const {
  check(dim() <= 2, "t: expects at most 2 dimensions, got shape ", shape());
  return dim() < 2 ? loom::reshape(*this, shape()) : loom::transpose(*this, 0, 1);
}

Tensor Tensor::mT() const {
  check(dim() >= 2, "mT: expects at least 2 dimensions, got shape ", shape());
  return loom::transpose(*this, -2, -1);
}

Tensor Tensor::permute(Dims dims) const { return loom::permute(*this, dims); }
Tensor Tensor::squeeze() const { return loom::squeeze(*this); }
Tensor Tensor::squeeze(int dim) const { return loom::squeeze(*this, dim); }
Tensor Tensor::unsqueeze(int dim) const { return loom::unsqueeze(*this, dim); }
Tensor Tensor::expand(Dims shape) const { return loom::expand(*this, shape); }
Tensor Tensor::select(int dim, int64_t index) const { return loom::select(*this, dim, index); }
Tensor Tensor::narrow(int dim, int64_t start, int64_t length) const { return loom::narrow(*this, dim, start, length); }
Tensor Tensor::slice(int dim, std::optional<int64_t> start, std::optional<int64_t> stop, int64_t step) const {
  return loom::slice(*this, dim, start, stop, step);
}
Tensor Tensor::diagonal(int64_t offset, int dim1, int dim2) const { return loom::diagonal(*this, offset, dim1, dim2); }
Tensor Tensor::index(const std::vector<Index>& indices) const { return loom::index(*this, indices); }

// Reductions and the like.

Tensor Tensor::sum(Dims dims, bool keepdim) const { return loom::sum(*this, dims, keepdim); }
Tensor Tensor::mean(Dims dims, bool keepdim) const { return loom::mean(*this, dims, keepdim); }
Tensor Tensor::var(Dims dims, double correction, bool keepdim) const {
  return loom::var(*this, dims, correction, keepdim);
}
Tensor Tensor::prod(Dims dims, bool keepdim) const { return loom::prod(*this, dims, keepdim); }
Tensor Tensor::norm(double p, Dims dims, bool keepdim) const { return loom::norm(*this, p, dims, keepdim); }
Tensor Tensor::cumsum(int dim) const { return loom::cumsum(*this, dim); }
std::pair<Tensor, Tensor> Tensor::sort(int dim, bool descending) const { return loom::sort(*this, dim, descending); }
Tensor Tensor::gather(int dim, const Tensor& index) const { return loom::gather(*this, dim, index); }
std::pair<Tensor, Tensor> Tensor::max(int dim, bool keepdim) const { return loom::max(*this, dim, keepdim); }
std::pair<Tensor, Tensor> Tensor::min(int dim, bool keepdim) const { return loom::min(*this, dim, keepdim); }
Tensor Tensor::max() const { return loom::max(*this); }
Tensor Tensor::min() const { return loom::min(*this); }
Tensor Tensor::argmax(std::optional<int> dim, bool keepdim) const { return loom::argmax(*this, dim, keepdim); }
Tensor Tensor::argmin(std::optional<int> dim, bool keepdim) const { return loom::argmin(*this, dim, keepdim); }
Tensor Tensor::all() const { return loom::all(*this); }
Tensor Tensor::any() const { return loom::any(*this); }
Tensor Tensor::matmul(const Tensor& other) const { return loom::matmul(*this, other); }
Tensor Tensor::softmax(int dim) const { return loom::softmax(*this, dim); }
Tensor Tensor::pow(const Tensor& exponent) const {
  if (exponent.body().wrapped_number && is_floating(dtype())) return loom::pow_scalar(*this, exponent.item<double>());
  return loom::pow(*this, exponent);
}
Tensor Tensor::clamp(double min, double max) const { return loom::clamp(*this, min, max); }

#define UNARY(name, ...) \
  Tensor Tensor::name() const { return loom::name(*this); }
#define STEP(name, ...) \
  Tensor Tensor::name() const { return loom::name(*this); }
#define PREDICATE(name, ...) \
  Tensor Tensor::name() const { return loom::name(*this); }
#include <loom/accelerators/elementwise.def>

// In place.

namespace {

template <class... Others>
void refuse_recorded(const char* op, const Tensor& x, const Others&... others) {
  check(!autograd::recording(x, others...), op,
        ": an in-place operation on (or with) a tensor that requires grad is not ",
        "recorded; use the function that returns a new tensor, or wrap the call in NoGrad");
}

}  // namespace

#define UNARY(name, ...)                                                  \
  Tensor Tensor::name##_() const {                                        \
    refuse_recorded(#name "_", *this);                                    \
    speaking_as(#name "_", [&] { raw::unary_into(Unary::name, *this); }); \
    return *this;                                                         \
  }
#define STEP(name, ...) UNARY(name)
#include <loom/accelerators/elementwise.def>

namespace {

// A whole factor leaves integers integral; one of 16-bit values may be beyond 16 bits.
Tensor scaled(const Tensor& x, double factor) {
  if (factor == 1) return x;
  const bool whole = !is_floating(x.dtype()) && factor == std::floor(factor);
  return raw::binary(Binary::mul, wide(x), whole ? Tensor(static_cast<int64_t>(factor)) : Tensor(factor));
}

void binary_in_place(const char* op, Binary binary, const Tensor& x, const Tensor& other, double factor = 1) {
  refuse_recorded(op, x, other);
  speaking_as(op, [&] { raw::binary_into(binary, x, scaled(other, factor)); });
}

}  // namespace

Tensor Tensor::add_(const Tensor& other, double alpha) const {
  binary_in_place("add_", Binary::add, *this, other, alpha);
  return *this;
}
Tensor Tensor::sub_(const Tensor& other, double alpha) const {
  binary_in_place("sub_", Binary::sub, *this, other, alpha);
  return *this;
}
Tensor Tensor::mul_(const Tensor& other) const {
  binary_in_place("mul_", Binary::mul, *this, other);
  return *this;
}
Tensor Tensor::div_(const Tensor& other) const {
  binary_in_place("div_", Binary::div, *this, other);
  return *this;
}
Tensor Tensor::pow_(const Tensor& exponent) const {
  if (!exponent.body().wrapped_number || !is_floating(dtype())) {
    binary_in_place("pow_", Binary::pow, *this, exponent);
    return *this;
  }
  refuse_recorded("pow_", *this, exponent);
  speaking_as("pow_", [&] { raw::unary_into(Unary::pow_scalar, *this, exponent.item<double>()); });
  return *this;
}
Tensor Tensor::lerp_(const Tensor& end, const Tensor& weight) const {
  refuse_recorded("lerp_", *this, end, weight);
  speaking_as("lerp_", [&] {
    const Tensor way = raw::binary(Binary::sub, wide(end), wide(*this));
    raw::binary_into(Binary::add, *this, raw::binary(Binary::mul, weight, way));
  });
  return *this;
}
Tensor Tensor::addcmul_(const Tensor& a, const Tensor& b, double value) const {
  refuse_recorded("addcmul_", *this, a, b);
  speaking_as("addcmul_", [&] {
    const Tensor product = raw::binary(Binary::mul, wide(a), wide(b));
    raw::binary_into(Binary::add, *this, value == 1 ? product : raw::binary(Binary::mul, product, value));
  });
  return *this;
}
Tensor Tensor::copy_(const Tensor& source, bool non_blocking) const {
  refuse_recorded("copy_", *this, source);
  raw::copy_into(*this, source, non_blocking);
  return *this;
}
Tensor Tensor::fill_(double value) const {
  refuse_recorded("fill_", *this);
  raw::fill_into(*this, value);
  return *this;
}
Tensor Tensor::zero_() const { return fill_(0); }
Tensor Tensor::clamp_(double min, double max) const {
  refuse_recorded("clamp_", *this);
  raw::unary_into(Unary::clamp, *this, min, max);
  return *this;
}
Tensor Tensor::masked_fill_(const Tensor& mask, double value) const {
  refuse_recorded("masked_fill_", *this);
  raw::masked_fill_into(*this, mask, value);
  return *this;
}
Tensor Tensor::uniform_(double low, double high) const {
  refuse_recorded("uniform_", *this);
  speaking_as("uniform_", [&] { raw::random_into(Random::uniform, *this, low, high); });
  return *this;
}
Tensor Tensor::normal_(double mean, double std) const {
  refuse_recorded("normal_", *this);
  speaking_as("normal_", [&] { raw::random_into(Random::normal, *this, mean, std); });
  return *this;
}
Tensor Tensor::bernoulli_(double probability) const {
  refuse_recorded("bernoulli_", *this);
  speaking_as("bernoulli_", [&] { raw::random_into(Random::bernoulli, *this, probability, 0); });
  return *this;
}
Tensor Tensor::index_add_(int dim, const Tensor& index, const Tensor& source) const {
  refuse_recorded("index_add_", *this, source);
  speaking_as("index_add_", [&] { raw::index_add_into(*this, dim, index, source); });
  return *this;
}
Tensor Tensor::scatter_(int dim, const Tensor& index, const Tensor& source) const {
  refuse_recorded("scatter_", *this, source);
  speaking_as("scatter_", [&] { raw::scatter_into(Scatter::assign, *this, dim, index, source); });
  return *this;
}
Tensor Tensor::scatter_add_(int dim, const Tensor& index, const Tensor& source) const {
  refuse_recorded("scatter_add_", *this, source);
  speaking_as("scatter_add_", [&] { raw::scatter_into(Scatter::add, *this, dim, index, source); });
  return *this;
}
Tensor Tensor::index_put_(const std::vector<Index>& indices, const Tensor& values, bool accumulate) const {
  refuse_recorded("index_put_", *this, values);
  index_put_into(*this, indices, values, accumulate);
  return *this;
}

}  // namespace loom
