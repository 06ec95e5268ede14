// Random numbers: the rank's generator says which, the device's kernel makes them.
#include <loom/tensor/device_graph.h>
#include <loom/tensor/raw/operand.h>

namespace loom::raw {

namespace {

const char* name_of(Random kind) {
  constexpr const char* names[] = {"uniform", "normal", "bernoulli", "integers"};
  return names[static_cast<size_t>(kind)];
}

void check_range(Random kind, double a, double b) {
  switch (kind) {
    case Random::uniform:
      check(a <= b, "uniform: low ", a, " is above high ", b);
      break;
    case Random::normal:
      check(b >= 0, "normal: the deviation ", b, " is negative");
      break;
    case Random::bernoulli:
      check(a >= 0 && a <= 1, "bernoulli: probability ", a, " is outside [0, 1]");
      break;
    case Random::integers:
      check(a < b, "integers: low ", a, " is not below high ", b);
      break;
  }
}

// The dtype that the kernel draws in: integers are i64, the rest floating.
DType drawn_dtype(Random kind, DType wanted) {
  if (kind == Random::integers) return DType::i64;
  check(is_floating(wanted) || kind == Random::bernoulli, name_of(kind), ": expects a floating dtype, got ", wanted);
  return is_floating(wanted) ? wanted : DType::f32;
}

void draw(Random kind, const View& y, double a, double b, uint64_t stream) {
  const Philox state = context().generator.draw(y.numel(), stream);
  check_drawn_on_device(name_of(kind), y.device);
  if (y.numel() > 0) accelerator(y.device).random(kind, y, a, b, state);
}

}  // namespace

Tensor random(Random kind, const Dims& shape, double a, double b, const TensorOptions& options, uint64_t stream) {
  check_range(kind, a, b);
  const DType dtype = options.dtype.value_or(kind == Random::integers ? DType::i64 : context().default_dtype);
  const Tensor y =
      uninitialized(name_of(kind), shape, drawn_dtype(kind, dtype), options.device.value_or(context().default_device));
  draw(kind, y, a, b, stream);
  return cast(y, dtype);
}

void random_into(Random kind, const Tensor& y, double a, double b, uint64_t stream) {
  check_range(kind, a, b);
  check_writable(str(name_of(kind), "_"), y);
  const DType drawn = drawn_dtype(kind, y.dtype());
  y.storage()->bump_version();
  if (drawn == y.dtype())
    draw(kind, y, a, b, stream);
  else
    copy_into(y, random(kind, y.shape(), a, b, {drawn, y.device()}, stream));
}

}  // namespace loom::raw
