#include <loom/autograd/autocast.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include <loom/autograd/graph.h>
#include <loom/autograd/op.h>
#include <loom/tensor/context.h>
#include <loom/tensor/raw.h>

namespace loom {

// The casts of parameters in a region.
class CastCache {
 public:
  Tensor cast(const Tensor& x, DType dtype) {
    Entry& entry = entries_[x.body_pointer().get()];
    if (!entry.cast.defined() || entry.cast.dtype() != dtype || entry.version != x.version() ||
        entry.storage != x.storage())
      entry = {raw::cast(x.detach(), dtype), x, x.storage(), x.version()};
    return raw::alias(entry.cast);
  }

 private:
  struct Entry {
    Tensor cast;
    Tensor parameter;  // kept, so that its address stays its own
    Ref<Storage> storage;
    uint64_t version = 0;
  };
  std::unordered_map<const Tensor::Body*, Entry> entries_;
};

Autocast::Autocast(DType low, bool enabled, bool cache)
    : context_(context()),
      enabled_(context_.autocast),
      outermost_(enabled && cache && !context_.cast_cache),
      dtype_(context_.autocast_dtype) {
  check(low == DType::f16 || low == DType::bf16, "autocast: the low precision is f16 or bf16, got ", low);
  context_.autocast = enabled;
  context_.autocast_dtype = low;
  if (outermost_) context_.cast_cache = std::make_shared<CastCache>();
}

Autocast::Autocast()
    : context_(context()), enabled_(context_.autocast), outermost_(false), dtype_(context_.autocast_dtype) {
  context_.autocast = false;
}

Autocast::~Autocast() {
  context_.autocast = enabled_;
  context_.autocast_dtype = dtype_;
  if (outermost_) context_.cast_cache.reset();
}

bool is_autocast_enabled() { return context().autocast; }

namespace autograd {

namespace {

bool casts(const Tensor& x) { return x.defined() && is_floating(x.dtype()) && x.dtype() != DType::f64; }

bool is_parameter(const Tensor& x) {
  const Tensor::Body& body = x.body();
  return body.meta && body.meta->requires_grad && !body.node && !body.autocast;
}

// x in another dtype, at its place in the graph: what is recorded with it gives gradients of x, in x's dtype, and no
// node of the cast stands between.
Tensor standing_for(const Tensor& x, DType dtype) {
  Context& here = context();
  Tensor y = here.cast_cache && is_parameter(x) ? here.cast_cache->cast(x, dtype) : raw::cast(x, dtype);
  const Tensor::Body& from = x.body();
  Tensor::Body& to = y.mutable_body();
  to.wrapped_number = from.wrapped_number;
  if (!requires_grad(x)) return y;
  to.autocast = true;
  to.graph_dtype = from.autocast ? from.graph_dtype : from.dtype;
  to.node = from.node;
  to.slot = from.slot;
  to.meta = from.meta;
  return y;
}

// The widest floating dtype of the arguments; numbers have no say.
DType widest(std::span<const Tensor*> arguments) {
  std::optional<DType> found;
  for (const Tensor* const x : arguments)
    if (x->defined() && is_floating(x->dtype()) && x->dim() > 0)
      found = found ? promote(*found, x->dtype()) : x->dtype();
  return found.value_or(DType::f64);
}

}  // namespace

void autocast_arguments(const Op& op, std::span<const Tensor*> arguments, std::span<Tensor> own) {
  DType target = context().autocast_dtype;
  switch (op.cast) {
    case Cast::same:
      return;
    case Cast::unsafe:
      fail(op.name, ": unsafe under autocast, its argument would be rounded to 16 bits before the logarithm; use ",
           op.name, "_with_logits, which takes logits, or call it in a scope of Autocast(dtype, false)");
    case Cast::low:
      break;
    case Cast::f32:
      target = DType::f32;
      break;
    case Cast::promote:
      target = widest(arguments);
      if (target == DType::f64) return;
      break;
  }
  for (size_t i = 0; i < arguments.size(); ++i) {
    const Tensor& x = *arguments[i];
    if (!casts(x) || x.dtype() == target) continue;
    if (op.cast == Cast::promote && x.dim() == 0) continue;  // yields by itself
    own[i] = standing_for(x, target);
    arguments[i] = &own[i];
  }
}

std::vector<Tensor> enter_all(const Op& op, const std::vector<Tensor>& tensors) {
  std::vector<const Tensor*> arguments;
  arguments.reserve(tensors.size());
  for (const Tensor& x : tensors) arguments.push_back(&resolve(x));
  std::vector<Tensor> own(tensors.size()), out;
  if (context().autocast) autocast_arguments(op, arguments, own);
  out.reserve(tensors.size());
  for (const Tensor* const x : arguments) out.push_back(*x);
  return out;
}

}  // namespace autograd
}  // namespace loom
