// SPDX-License-Identifier: Apache-2.0
// Casts between all dtypes, and the dtypes of results, against PyTorch.
#include <cmath>
#include <functional>

#include "golden.h"

namespace {

using namespace loom;

constexpr DType dtypes[] = {f64, f32, f16, bf16, i64, i32, u8, boolean};

const golden::Tensors& stored() { return golden::file("dtypes"); }

// The place of the result's dtype, as tests/golden/dtype_cases.py counts them; the op refuses.
constexpr int refused = 255;
template <class F>
int number_of(const F& f) {
  try {
    return static_cast<int>(f());
  } catch (const Error&) {
    return refused;
  }
}

using TypeOf = std::function<DType(const Tensor&, const Tensor&)>;

// Each dtype with dimensions and without, against: each with dimensions, each without, a number of each kind.
void check_table(const std::string& name, const TypeOf& type_of) {
  const std::vector<int> expected = stored().at(name).to_vector<int>();
  std::vector<Tensor> tensors;
  for (const Dims& shape : {Dims{2}, Dims{}})
    for (const DType t : dtypes) tensors.push_back(ones(shape, t));
  std::vector<Tensor> others = tensors;
  others.insert(others.end(), {Tensor(2.5), Tensor(2), Tensor(true)});
  REQUIRE(expected.size() == tensors.size() * others.size());
  size_t i = 0;
  for (const Tensor& x : tensors)
    for (const Tensor& other : others) {
      const int want = expected[i++];
      if (want == refused) continue;                                                       // PyTorch has no such kernel
      if (name == "op.pow" && x.dtype() == boolean && other.dtype() == boolean) continue;  // of True alone it has one
      const int got = number_of([&] { return type_of(x, other); });
      CHECK_MESSAGE(got == want, name, " of ", x.dtype(), x.shape(), " and ", other.dtype(), other.shape(),
                    ": expected ", dtypes[want]);
    }
}

}  // namespace

TEST_CASE("casts give PyTorch's bits") {
  for (const DType from : dtypes)
    for (const DType to : dtypes) {
      CAPTURE(from);
      CAPTURE(to);
      const std::string name = str("cast.", from, ".", to);
      const Tensor in = stored().at(name + ".in");
      const auto x = in.to_vector<double>(), got = in.to(to).to_vector<double>();
      const auto expected = stored().at(name + ".out").to_vector<double>();
      REQUIRE(got.size() == expected.size());
      for (size_t i = 0; i < got.size(); ++i) {
        const bool same = got[i] == expected[i] && std::signbit(got[i]) == std::signbit(expected[i]);
        CHECK_MESSAGE((same || (std::isnan(got[i]) && std::isnan(expected[i]))), text::number(x[i]), ": ",
                      text::number(got[i]), ", expected ", text::number(expected[i]));
      }
    }
}

TEST_CASE("results have PyTorch's dtypes") {
  check_table("result_type", [](const Tensor& a, const Tensor& b) { return result_type(a, b); });
  check_table("result_type", [](const Tensor& a, const Tensor& b) { return result_type(b, a); });
#define BINARY(name, ...)             \
  if (stored().contains("op." #name)) \
    check_table("op." #name, [](const Tensor& a, const Tensor& b) { return loom::name(a, b).dtype(); });
#define COMPARE(name, ...) BINARY(name)
#define BITWISE(name, ...) BINARY(name)
#include <loom/accelerators/elementwise.def>
  check_table("op.cat", [](const Tensor& a, const Tensor& b) { return cat({a, b}).dtype(); });
  check_table("op.where", [](const Tensor& a, const Tensor& b) { return where(ones({2}, boolean), a, b).dtype(); });
}
