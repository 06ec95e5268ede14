// SPDX-License-Identifier: Apache-2.0
// What tests of members that write in place share.
#pragma once

#include <functional>
#include <vector>

#include <doctest/doctest.h>

#include <loom/autograd/ops.h>
#include <loom/tensor/create.h>

#include "../error_of.h"

namespace in_place {

using namespace loom;
using loom::testing::error_of;

// The same numbers in several layouts: dense, transposed, every second column of a wider tensor.
inline std::vector<Tensor> layouts(const Tensor& x) {
  const Tensor wide = zeros({x.size(0), 2 * x.size(1)}, x.dtype());
  const Tensor strided = slice(wide, 1, 0, 2 * x.size(1), 2);
  strided.copy_(x);
  return {x.clone(), x.t().contiguous().t(), strided};
}

// In place gives `expected` in every layout, in the same memory, and is counted as a write.
inline void check_in_place(const Tensor& x, const Tensor& expected, const std::function<void(const Tensor&)>& f) {
  for (const Tensor& y : layouts(x)) {
    const void* const memory = View(y).data;
    const uint64_t version = y.version();
    f(y);
    CHECK(equal(y, expected));
    CHECK(View(y).data == memory);
    CHECK(y.version() > version);
  }
}

}  // namespace in_place
