// SPDX-License-Identifier: Apache-2.0
// Members that write in place, over all pairs of dtypes: the tensor keeps its own and holds what f64 gives, or the
// member says under its own name why it cannot, and nothing is written.
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include <doctest/doctest.h>

#include <loom/autograd/ops.h>
#include <loom/tensor/create.h>

#include "../error_of.h"

using namespace loom;
using loom::testing::error_of;

namespace {

constexpr DType dtypes[] = {f64, f32, f16, bf16, i64, i32, u8, boolean};

using Text = std::string;  // what is thrown, after the name; empty: nothing

Text stored(DType x, DType result) {
  const bool fits = is_floating(x) || (!is_floating(result) && (x != boolean || result == boolean));
  return fits ? "" : str("the result ", result, " cannot be stored in ", x);
}

DType wide(DType x) { return is_half(x) ? f32 : x; }
DType floating(DType x) { return is_floating(x) ? x : f32; }
DType counted(DType x) { return x == boolean ? i64 : x; }

bool subtracts_masks(DType x, DType y) { return !is_floating(promote(x, y)) && (x == boolean || y == boolean); }
const char* const no_subtraction =
    "not defined for boolean tensors; use logical_xor, or logical_not for the inverse of a mask";
const char* const no_sums = "not implemented for boolean on cpu";

Text promoted(DType x, DType y) { return stored(x, promote(x, y)); }
Text promoted_wide(DType x, DType y) { return stored(x, promote(wide(x), wide(y))); }
Text always(DType, DType) { return ""; }
Text whole_bound(DType x, DType) { return stored(x, counted(x)); }
Text floating_bound(DType x, DType) { return stored(x, floating(x)); }
Text drawn(DType x, DType) { return is_floating(x) ? "" : str("expects a floating dtype, got ", x); }
Text position(DType, DType y) { return y == i64 ? "" : str("index must be i64, got ", y); }
Text position_of_sums(DType x, DType y) { return y == i64 && x == boolean ? no_sums : position(x, y); }
Text same(DType x, DType y) {
  return x == y ? "" : str("dtypes ", x, " and ", y, " differ; convert one with .to(dtype)");
}
Text same_of_sums(DType x, DType y) { return x == boolean && y == boolean ? no_sums : same(x, y); }
Text put(DType x, DType y) {
  return stored(x, y).empty() ? "" : str("values of ", y, " cannot be stored in ", x, "; convert them with .to(dtype)");
}

enum class Operand { values, places, none, draws };  // what the other tensor is; of none and draws there is none

struct Member {
  const char* name;
  Operand operand;
  void (*write)(const Tensor& x, const Tensor& y);
  Text (*text)(DType x, DType y);
};

Tensor first(const Tensor& x) { return x.narrow(0, 0, 1); }
Tensor two(const Tensor& x) { return x.narrow(0, 0, 2); }
Tensor places() { return tensor({2, 0}); }

const Member members[] = {
    {"add_", Operand::values, [](const Tensor& x, const Tensor& y) { x.add_(y); }, promoted},
    {"add_", Operand::values, [](const Tensor& x, const Tensor& y) { x.add_(y, 2); },
     [](DType x, DType y) { return stored(x, promote(x, counted(wide(y)))); }},
    {"add_", Operand::values, [](const Tensor& x, const Tensor& y) { x.add_(y, 0.5); },
     [](DType x, DType y) { return stored(x, promote(x, floating(wide(y)))); }},
    {"sub_", Operand::values, [](const Tensor& x, const Tensor& y) { x.sub_(y); },
     [](DType x, DType y) { return subtracts_masks(x, y) ? no_subtraction : promoted(x, y); }},
    {"mul_", Operand::values, [](const Tensor& x, const Tensor& y) { x.mul_(y); }, promoted},
    {"div_", Operand::values, [](const Tensor& x, const Tensor& y) { x.div_(y); },
     [](DType x, DType y) { return stored(x, floating(promote(x, y))); }},
    {"pow_", Operand::values, [](const Tensor& x, const Tensor& y) { x.pow_(y); },
     [](DType x, DType y) {
       return promote(x, y) == boolean ? "not defined for boolean tensors; convert one with .to(dtype)"
                                       : promoted(x, y);
     }},
    {"pow_", Operand::none, [](const Tensor& x, const Tensor&) { x.pow_(2); }, whole_bound},
    {"pow_", Operand::none, [](const Tensor& x, const Tensor&) { x.pow_(2.0); }, floating_bound},
    {"lerp_", Operand::values, [](const Tensor& x, const Tensor& y) { x.lerp_(y, 0.5); },
     [](DType x, DType y) {
       return subtracts_masks(x, y) ? no_subtraction : stored(x, floating(promote(wide(x), wide(y))));
     }},
    {"lerp_", Operand::values, [](const Tensor& x, const Tensor& y) { x.lerp_(y, 2); },
     [](DType x, DType y) { return subtracts_masks(x, y) ? no_subtraction : promoted_wide(x, y); }},
    {"lerp_", Operand::values, [](const Tensor& x, const Tensor& y) { x.lerp_(x * 3, y); },
     [](DType x, DType y) { return x == boolean ? no_subtraction : promoted(x, y); }},
    {"addcmul_", Operand::values, [](const Tensor& x, const Tensor& y) { x.addcmul_(y, x); }, promoted_wide},
    {"addcmul_", Operand::values, [](const Tensor& x, const Tensor& y) { x.addcmul_(x, y); }, promoted_wide},
    {"addcmul_", Operand::values, [](const Tensor& x, const Tensor& y) { x.addcmul_(x, y, 2); },
     [](DType x, DType y) { return stored(x, floating(promote(wide(x), wide(y)))); }},
    {"copy_", Operand::values, [](const Tensor& x, const Tensor& y) { x.copy_(y); }, always},
    {"fill_", Operand::none, [](const Tensor& x, const Tensor&) { x.fill_(3); }, always},
    {"zero_", Operand::none, [](const Tensor& x, const Tensor&) { x.zero_(); }, always},
    {"clamp_", Operand::none, [](const Tensor& x, const Tensor&) { x.clamp_(1, 2); }, whole_bound},
    {"clamp_", Operand::none, [](const Tensor& x, const Tensor&) { x.clamp_(1.5, 2.5); }, floating_bound},
    {"masked_fill_", Operand::places, [](const Tensor& x, const Tensor& y) { x.masked_fill_(y, 3); },
     [](DType, DType y) { return y == boolean ? "" : str("the mask must be boolean, got ", y); }},
    {"uniform_", Operand::draws, [](const Tensor& x, const Tensor&) { x.uniform_(); }, drawn},
    {"normal_", Operand::draws, [](const Tensor& x, const Tensor&) { x.normal_(); }, drawn},
    {"bernoulli_", Operand::draws, [](const Tensor& x, const Tensor&) { x.bernoulli_(); }, always},
    {"index_add_", Operand::places, [](const Tensor& x, const Tensor& y) { x.index_add_(0, first(y), first(x)); },
     position_of_sums},
    {"index_add_", Operand::values, [](const Tensor& x, const Tensor& y) { x.index_add_(0, places(), two(y)); },
     same_of_sums},
    {"scatter_", Operand::places, [](const Tensor& x, const Tensor& y) { x.scatter_(0, first(y), first(x)); },
     position},
    {"scatter_", Operand::values, [](const Tensor& x, const Tensor& y) { x.scatter_(0, places(), two(y)); }, same},
    {"scatter_add_", Operand::places, [](const Tensor& x, const Tensor& y) { x.scatter_add_(0, first(y), first(x)); },
     position_of_sums},
    {"scatter_add_", Operand::values, [](const Tensor& x, const Tensor& y) { x.scatter_add_(0, places(), two(y)); },
     same_of_sums},
    {"index_put_", Operand::places, [](const Tensor& x, const Tensor& y) { x.index_put_({Index(y)}, 1); },
     [](DType, DType y) {
       return y == i64 || y == i32 || y == boolean
                  ? ""
                  : str("given a tensor of ", y, ", expected positions (i64) or a mask (boolean)");
     }},
    {"index_put_", Operand::values, [](const Tensor& x, const Tensor& y) { x.index_put_({Index(places())}, two(y)); },
     put},
    {"index_put_", Operand::values,
     [](const Tensor& x, const Tensor& y) { x.index_put_({Index(places())}, two(y), true); },
     [](DType x, DType y) { return x == boolean && y == boolean ? no_sums : put(x, y); }},
};

void check_member(const Member& m, const Tensor& before, const Tensor& y) {
  CAPTURE(m.name);
  CAPTURE(to_string(before.dtype()));
  CAPTURE(to_string(y.dtype()));
  const Tensor x = before.clone();
  const Text said = error_of([&] { m.write(x, y); }), text = m.text(x.dtype(), y.dtype());
  CHECK(said == (text.empty() ? "" : str(m.name, ": ", text)));
  CHECK(x.dtype() == before.dtype());
  if (!text.empty()) CHECK(equal(x, before));
  if (!text.empty() || m.operand == Operand::draws) return;
  const Tensor exact = before.to(f64);
  m.write(exact, m.operand == Operand::values ? y.to(f64) : y);
  CHECK(equal(x, exact.to(x.dtype())));  // numbers that all dtypes hold, whatever the order of roundings
}

struct Function {
  const char* name;
  Tensor (*function)(const Tensor&);
  Tensor (Tensor::*member)() const;
};

const Function functions[] = {
#define UNARY(name, ...) {#name, &loom::name, &Tensor::name##_},
#define STEP(name, ...) {#name, &loom::name, &Tensor::name##_},
#include <loom/accelerators/elementwise.def>
};

}  // namespace

TEST_CASE("in place, all pairs of dtypes: the tensor keeps its own, or the member says why not") {
  for (const Member& m : members)
    for (const DType a : dtypes)
      for (const DType b : dtypes) check_member(m, tensor({3, 2, 0, 3}).to(a), tensor({1, 2, 1, 0}).to(b));
}

TEST_CASE("in place, functions of one argument: what the function gives is stored, or refused in these words") {
  for (const Function& u : functions)
    for (const DType dtype : dtypes) {
      CAPTURE(u.name);
      CAPTURE(to_string(dtype));
      const Tensor before = tensor({1, 0, 1}).to(dtype), x = before.clone();
      Tensor y;
      const Text of_function = error_of([&] { y = u.function(before); });
      const Text why = of_function.empty() ? stored(dtype, y.dtype()) : of_function.substr(Text(u.name).size() + 2);
      CHECK(error_of([&] { (x.*u.member)(); }) == (why.empty() ? "" : str(u.name, "_: ", why)));
      CHECK(x.dtype() == dtype);
      if (!why.empty()) CHECK(equal(x, before));
    }
}

TEST_CASE("in place: arguments out of range and shared places are refused under the member's own name") {
  for (const DType dtype : dtypes) {
    const Tensor x = ones({3}, dtype), shared = expand(ones({1}, dtype), {3});
    CHECK(error_of([&] { x.uniform_(2, 1); }) == "uniform_: low 2 is above high 1");
    CHECK(error_of([&] { x.normal_(0, -1); }) == "normal_: the deviation -1 is negative");
    CHECK(error_of([&] { x.bernoulli_(2); }) == "bernoulli_: probability 2 is outside [0, 1]");
    const Text text =
        ": the tensor is expanded (stride 0) at dimension 0, so several elements share one place; clone it first";
    CHECK(error_of([&] { shared.uniform_(); }) == "uniform_" + text);
    CHECK(error_of([&] { shared.normal_(); }) == "normal_" + text);
    CHECK(error_of([&] { shared.bernoulli_(); }) == "bernoulli_" + text);
    CHECK(error_of([&] { shared.pow_(2); }) == "pow_" + text);
    CHECK(error_of([&] { shared.clamp_(1, 2); }) == "clamp_" + text);
  }
}

TEST_CASE("every member of tensor.h that writes in place is in the table") {
  std::set<std::string> listed, declared;
  for (const Member& m : members) listed.insert(m.name);
  std::ostringstream header;
  header << std::ifstream(LOOM_SOURCE "/tensor/tensor.h").rdbuf();
  const std::string text = header.str();
  const std::regex member(R"(  Tensor (\w+_)\([^)]*\) const;)");
  for (auto at = std::sregex_iterator(text.begin(), text.end(), member); at != std::sregex_iterator(); ++at)
    declared.insert((*at)[1]);
  CHECK(declared.contains("index_put_"));
  CHECK(listed == declared);
}
