// SPDX-License-Identifier: Apache-2.0
// Tables of calls that must throw, and the exact texts.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <loom/autograd/ops.h>
#include <loom/autograd/ops/derivatives.h>
#include <loom/autograd/ops/recurrent.h>
#include <loom/tensor/create.h>

namespace loom::sweep {

struct Mistake {
  std::function<void()> call;
  std::string text;
};

#define CALL(expression) [] { (void)(expression); }

inline Tensor f(const Dims& shape) { return zeros(shape, f32); }
inline Tensor i(const Dims& shape) { return zeros(shape, i64); }

inline void check_all(const std::vector<Mistake>& mistakes) {
  for (const Mistake& m : mistakes) {
    std::string said = "nothing";
    try {
      m.call();
    } catch (const Error& error) {
      said = error.what();
    }
    CHECK(said == m.text);
  }
}

}  // namespace loom::sweep
