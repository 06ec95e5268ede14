// SPDX-License-Identifier: Apache-2.0
// What the op sweep checks: cases, each one call of a public op on inputs that it says how to draw. op_sweep_test.cpp
// makes all checks from them; adding an op is adding its cases to a cases_*.cpp.
#pragma once

#include <functional>
#include <random>
#include <string>
#include <vector>

#include <loom/autograd/ops.h>
#include <loom/autograd/ops/derivatives.h>
#include <loom/tensor/create.h>

namespace loom::sweep {

using Random = std::mt19937_64;
using In = const std::vector<Tensor>&;

struct Input {
  std::function<Tensor(Random&)> make;  // f64 where `typed`
  bool differentiate = true;
  bool typed = true;  // takes the dtype that a check runs in; indices and masks do not
};

Input real(const Dims& shape, double low = -2, double high = 2);
Input distinct(const Dims& shape);  // a shuffled grid: no two elements are near, so orders have no ties
Input constant(Input input);        // the same without gradient
Input integers(const Dims& shape, int64_t low, int64_t high);  // i64 in [low, high), not typed
Input whole(const Dims& shape, int64_t low, int64_t high);  // typed: whole numbers, no gradient (bitwise, comparisons)
Input mask(const Dims& shape);
Input unique_positions(const Dims& shape, int dim, int64_t extent);  // along dim, none twice
Input exactly(const Tensor& values, bool differentiate = true);

struct Case {
  std::string op, what;
  std::vector<Input> inputs;
  std::function<Tensor(In)> f;
  bool gradient = true;                  // false: the output must not require grad
  std::string first_order_only{};        // why the second order is left out
  std::string f64_only{};                // why other dtypes give other results
  std::string fixed_layout{};            // why inputs are not expanded (equal elements change the meaning)
  double length = 1;                     // of the longest sum
  double factor = 4;                     // roundings of the low precision result
  double step = 1e-5, tolerance = 1e-6;  // of central differences
  bool is_large = false;  // shapes or values too large for differences: plain against recorded gradients, layouts and
                          // precision only

  std::string name() const { return what.empty() ? op : op + " (" + what + ")"; }
  Case& constant_result() { return gradient = false, *this; }
  Case& sum_of(double n) { return length = n, *this; }
  Case& roundings(double n) { return factor = n, *this; }
  Case& differences(double h, double t) { return step = h, tolerance = t, *this; }
  Case& no_second_order(std::string why) { return first_order_only = std::move(why), *this; }
  Case& only_f64(std::string why) { return f64_only = std::move(why), *this; }
  Case& large() { return is_large = true, *this; }
  Case& not_expanded(std::string why) { return fixed_layout = std::move(why), *this; }

  // The inputs, always the same; real ones in `dtype`.
  std::vector<Tensor> draw(DType dtype = DType::f64) const;
};

class Cases {
 public:
  Case& add(std::string op, std::string what, std::vector<Input> inputs, std::function<Tensor(In)> f) {
    return all.emplace_back(Case{std::move(op), std::move(what), std::move(inputs), std::move(f)});
  }
  std::vector<Case> all;
};

void add_unary_cases(Cases& cases);
void add_binary_cases(Cases& cases);
void add_shape_cases(Cases& cases);
void add_reduce_cases(Cases& cases);
void add_matmul_cases(Cases& cases);
void add_index_cases(Cases& cases);
void add_convolution_cases(Cases& cases);
void add_neural_cases(Cases& cases);
void add_loss_cases(Cases& cases);
void add_large_cases(Cases& cases);  // sizes at which kernels use blocks, vectors and threads
void add_edge_cases(Cases& cases);   // inputs without elements, and without dimensions
void add_wide_cases(Cases& cases);   // values whose intermediates 16 bits do not hold

const std::vector<Case>& all_cases();

}  // namespace loom::sweep
