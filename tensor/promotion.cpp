// torch.result_type: three classes of operands, and two rules between them.
#include <loom/tensor/context.h>
#include <loom/tensor/tensor.h>

namespace loom {

namespace {

using MaybeDType = std::optional<DType>;

MaybeDType promote(MaybeDType a, MaybeDType b) {
  if (!a || !b) return a ? a : b;
  return loom::promote(*a, *b);
}

// The higher class wins unless the lower is of a higher category (boolean < integral < floating).
MaybeDType combine(MaybeDType higher, MaybeDType lower) {
  if (!higher || !lower) return higher ? higher : lower;
  if (is_floating(*higher)) return higher;
  if (*higher == DType::boolean || is_floating(*lower)) return promote(higher, lower);
  return higher;
}

// What the operands of each class promote to: those with dimensions, without, and C++ numbers.
struct Classes {
  MaybeDType tensors, scalars, numbers;
  void add(const Tensor& x) {
    if (x.dim() > 0)
      tensors = promote(tensors, x.dtype());
    else if (!x.body().wrapped_number)
      scalars = promote(scalars, x.dtype());
    else
      numbers = promote(numbers, is_floating(x.dtype()) ? context().default_dtype : x.dtype());
  }
  DType result() const { return *combine(tensors, combine(scalars, numbers)); }
};

}  // namespace

DType result_type(const Tensor& a, const Tensor& b) {
  if (a.dtype() == b.dtype() && !a.body().wrapped_number && !b.body().wrapped_number) return a.dtype();
  Classes classes;
  classes.add(a);
  classes.add(b);
  return classes.result();
}

DType result_type(std::initializer_list<const Tensor*> operands) {
  Classes classes;
  bool any = false;
  for (const Tensor* const x : operands) {
    if (x->defined()) classes.add(*x);
    any = any || x->defined();
  }
  if (!any) return (*operands.begin())->dtype();  // throws
  return classes.result();
}

}  // namespace loom
