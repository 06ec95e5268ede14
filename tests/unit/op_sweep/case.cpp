// SPDX-License-Identifier: Apache-2.0
#include "case.h"

#include <algorithm>
#include <numeric>

namespace loom::sweep {

namespace {

// Not Loom's generator: what it draws must not change with the code under test. 53 bits of [0, 1).
double uniform(Random& random) { return static_cast<double>(random() >> 11) * 0x1p-53; }

template <class T, class Next>
Tensor filled(const Dims& shape, const Next& next) {
  std::vector<T> values;
  for (int64_t i = 0; i < shape.numel(); ++i) values.push_back(next(i));
  return from_vector(values, shape);
}

void shuffle(std::vector<int64_t>& order, Random& random) {
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
}

std::vector<int64_t> shuffled(int64_t n, Random& random) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  shuffle(order, random);
  return order;
}

}  // namespace

Input real(const Dims& shape, double low, double high) {
  return {[=](Random& r) { return filled<double>(shape, [&](int64_t) { return low + (high - low) * uniform(r); }); }};
}

Input distinct(const Dims& shape) {
  return {[=](Random& r) {
    const auto order = shuffled(shape.numel(), r);
    // Steps of 1/8: exact in 16 bits for up to 256 elements.
    return filled<double>(shape, [&](int64_t i) {
      return (static_cast<double>(order[static_cast<size_t>(i)]) - static_cast<double>(shape.numel()) / 2 + 0.5) / 8;
    });
  }};
}

Input constant(Input input) {
  input.differentiate = false;
  return input;
}

Input integers(const Dims& shape, int64_t low, int64_t high) {
  const auto draw = [=](Random& r) {
    return filled<int64_t>(
        shape, [&](int64_t) { return low + static_cast<int64_t>(r() % static_cast<uint64_t>(high - low)); });
  };
  return {draw, false, false};
}

Input whole(const Dims& shape, int64_t low, int64_t high) {
  return {[draw = integers(shape, low, high).make](Random& r) { return draw(r).to(DType::f64); }, false, true};
}

Input mask(const Dims& shape) {
  const auto draw = [=](Random& r) {
    return filled<uint8_t>(shape, [&](int64_t) { return static_cast<uint8_t>(r() >> 63); });
  };
  return {[draw](Random& r) { return draw(r).to(DType::boolean); }, false, false};
}

Input unique_positions(const Dims& shape, int dim, int64_t extent) {
  const auto draw = [=](Random& r) {
    Dims moved = shape;
    moved.erase(dim);
    moved.push_back(shape[dim]);
    std::vector<int64_t> values;
    while (static_cast<int64_t>(values.size()) < shape.numel()) {
      const auto order = shuffled(extent, r);
      values.insert(values.end(), order.begin(), order.begin() + shape[dim]);
    }
    return movedim(from_vector(values, moved), -1, dim).contiguous();
  };
  return {draw, false, false};
}

Input exactly(const Tensor& values, bool differentiate) {
  return {[values](Random&) { return values.clone(); }, differentiate, is_floating(values.dtype())};
}

std::vector<Tensor> Case::draw(DType dtype) const {
  uint64_t seed = 14695981039346656037u;  // FNV-1a of the name
  for (const char c : name()) seed = (seed ^ static_cast<unsigned char>(c)) * 1099511628211u;
  Random random(seed);
  std::vector<Tensor> drawn;
  for (const Input& input : inputs) {
    const Tensor x = input.make(random);
    drawn.push_back(input.typed && x.dtype() != dtype ? x.to(dtype) : x);
  }
  return drawn;
}

const std::vector<Case>& all_cases() {
  static const std::vector<Case> cases = [] {
    Cases c;
    add_unary_cases(c);
    add_binary_cases(c);
    add_shape_cases(c);
    add_reduce_cases(c);
    add_matmul_cases(c);
    add_index_cases(c);
    add_convolution_cases(c);
    add_neural_cases(c);
    add_loss_cases(c);
    add_large_cases(c);
    add_edge_cases(c);
    add_wide_cases(c);
    return std::move(c.all);
  }();
  return cases;
}

}  // namespace loom::sweep
