// SPDX-License-Identifier: Apache-2.0
// Members that write in place: every one gives what the function gives that returns a new tensor, in the tensor's own
// memory, in every layout and dtype; where that result is of another kind, it is refused and nothing is written.
#include "in_place.h"

#include <cmath>

#include <loom/tensor/context.h>

using namespace in_place;

namespace {

constexpr DType dtypes[] = {f64, f32, f16, bf16, i64, i32, u8, boolean};

Tensor drawn(DType dtype, double low, double high) {
  const Tensor x = rand({5, 4}, f64) * (high - low) + low;
  return (dtype == u8 || dtype == boolean ? abs(x) : x).to(dtype);
}

// What a function gives, or why it cannot.
struct Outcome {
  Tensor value;
  std::string error;
};

Outcome outcome(const std::function<Tensor()>& f) {
  Outcome out;
  out.error = error_of([&] { out.value = f(); });
  return out;
}

void check_as_function(const std::string& name, const Tensor& x, const Outcome& expected,
                       const std::function<void(const Tensor&)>& f) {
  CAPTURE(name);
  CAPTURE(to_string(x.dtype()));
  const bool fits = expected.error.empty() && (is_floating(x.dtype()) || !is_floating(expected.value.dtype())) &&
                    (x.dtype() != boolean || expected.value.dtype() == boolean);
  if (fits) return check_in_place(x, expected.value.to(x.dtype()), f);
  const Tensor y = x.clone();
  CHECK(error_of([&] { f(y); }).starts_with(name + "_: "));
  CHECK(equal(y, x));
}

struct Member {
  const char* name;
  Tensor (*function)(const Tensor&);
  Tensor (Tensor::*member)() const;
  double low, high;
};

const Member members[] = {
#define UNARY(name, kind, f, derivative, keeps, lo, hi, cast) {#name, &loom::name, &Tensor::name##_, lo, hi},
#define STEP(name, f, lo, hi) {#name, &loom::name, &Tensor::name##_, lo, hi},
#include <loom/accelerators/elementwise.def>
};

}  // namespace

TEST_CASE("in place: every function of one argument, in every dtype and layout") {
  manual_seed(11);
  CHECK(std::size(members) >= 45);
  for (const Member& m : members)
    for (const DType dtype : dtypes) {
      const Tensor x = drawn(dtype, m.low, m.high);
      check_as_function(m.name, x, outcome([&] { return m.function(x); }), [&](const Tensor& y) {
        const Tensor same = (y.*m.member)();
        CHECK(same.is_same(y));
      });
    }
}

TEST_CASE("in place: arithmetic with a tensor, a broadcast one and a number") {
  manual_seed(12);
  for (const DType dtype : dtypes) {
    const Tensor x = drawn(dtype, 1, 5), same = drawn(dtype, 1, 3), row = drawn(dtype, 1, 3)[0];
    for (const Tensor& other : {same, row, Tensor(2)}) {
      const auto check = [&](const char* name, const std::function<Tensor()>& function, const auto& f) {
        check_as_function(name, x, outcome(function), f);
      };
      check(
          "add", [&] { return x + other; }, [&](const Tensor& y) { y.add_(other); });
      check(
          "add", [&] { return x + other; }, [&](const Tensor& y) { y += other; });
      check(
          "mul", [&] { return x * other; }, [&](const Tensor& y) { y.mul_(other); });
      check(
          "mul", [&] { return x * other; }, [&](const Tensor& y) { y *= other; });
      check(
          "div", [&] { return x / other; }, [&](const Tensor& y) { y.div_(other); });
      check(
          "div", [&] { return x / other; }, [&](const Tensor& y) { y /= other; });
      check(
          "pow", [&] { return x.pow(other); }, [&](const Tensor& y) { y.pow_(other); });
      if (dtype == boolean) continue;
      const auto wide = [](const Tensor& t) { return t.dtype() == f16 || t.dtype() == bf16 ? t.to(f32) : t; };
      check(
          "sub", [&] { return x - other; }, [&](const Tensor& y) { y.sub_(other); });
      check(
          "sub", [&] { return x - other; }, [&](const Tensor& y) { y -= other; });
      check(
          "add", [&] { return wide(x) + wide(other) * 3; }, [&](const Tensor& y) { y.add_(other, 3); });
      check(
          "sub", [&] { return wide(x) - wide(other) * 0.5; }, [&](const Tensor& y) { y.sub_(other, 0.5); });
    }
  }
}

TEST_CASE("in place: values, bounds, copies and random numbers") {
  manual_seed(13);
  for (const DType dtype : dtypes) {
    CAPTURE(to_string(dtype));
    const Tensor x = drawn(dtype, 0, 9), source = drawn(f64, 1, 6);
    check_in_place(x, full({5, 4}, 1, dtype), [](const Tensor& y) { y.fill_(1); });
    check_in_place(x, zeros({5, 4}, dtype), [](const Tensor& y) { y.zero_(); });
    check_in_place(x, source.to(dtype), [&](const Tensor& y) { y.copy_(source); });
    check_in_place(x, source[2].to(dtype).expand({5, 4}), [&](const Tensor& y) { y.copy_(source[2]); });
    check_as_function("clamp", x, outcome([&] { return clamp(x, 2, 5); }), [](const Tensor& y) { y.clamp_(2, 5); });
    check_as_function("clamp", x, outcome([&] { return clamp(x, 2.5, 5.5); }),
                      [](const Tensor& y) { y.clamp_(2.5, 5.5); });
    const auto fresh = [&](auto draw) {
      manual_seed(14);
      Tensor y = empty({5, 4}, dtype);
      draw(y);
      return y;
    };
    const auto check_random = [&](auto draw) {
      for (const Tensor& y : layouts(x)) {
        manual_seed(14);
        draw(y);
        CHECK(equal(y, fresh(draw)));
      }
    };
    check_random([](const Tensor& y) { y.bernoulli_(0.25); });
    if (!is_floating(dtype)) continue;
    check_random([](const Tensor& y) { y.uniform_(2, 3); });
    check_random([](const Tensor& y) { y.normal_(1, 2); });
    CHECK(all(fresh([](const Tensor& y) { y.uniform_(2, 3); }) >= 2.0).item<bool>());
  }
}

TEST_CASE("in place: with the tensor itself, and 16-bit values whose intermediates are beyond 16 bits") {
  const Tensor x = arange(9, f64).reshape({3, 3});
  check_in_place(x, x * x, [](const Tensor& y) { y.mul_(y); });
  check_in_place(x, x + x.t(), [](const Tensor& y) { y.add_(y.t()); });
  check_in_place(x, x - x[0], [](const Tensor& y) { y.sub_(y[0]); });
  const Tensor large = full({2, 2}, -6e4, f16);
  check_in_place(large, full({2, 2}, 0, f16), [](const Tensor& y) { y.lerp_(full({2, 2}, 6e4, f16), 0.5); });
  check_in_place(large, full({2, 2}, 3e4, f16),
                 [](const Tensor& y) { y.addcmul_(full({2}, 300, f16), full({2}, 600, f16), 0.5); });
  check_in_place(large, full({2, 2}, 2e4, f16), [](const Tensor& y) { y.add_(full({2}, 4e4, f16), 2); });
  check_in_place(-large, full({2, 2}, -2e4, f16), [](const Tensor& y) { y.sub_(full({2}, 4e4, f16), 2); });
}
