// SPDX-License-Identifier: Apache-2.0
// Reductions as a plain loop.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include <loom/distributed/collective.h>

#include "buffer.h"
#include "ranks.h"

// The reduction of one element.
template <class T>
T combine(loom::ReduceOp op, T a, T b) {
  using U = std::conditional_t<std::is_integral_v<T>, uint64_t, T>;  // integers wrap
  switch (op) {
    case loom::ReduceOp::min:
      return std::min(a, b);
    case loom::ReduceOp::max:
      return std::max(a, b);
    case loom::ReduceOp::product:
      return static_cast<T>(static_cast<U>(a) * static_cast<U>(b));
    default:
      return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
  }
}

// What the ranks' elements [begin, begin + count) come to, one by one in rank order.
inline Buffer reference(loom::ReduceOp op, loom::DType dtype, int ranks, int64_t count, int64_t begin = 0) {
  std::vector<Buffer> in;
  in.reserve(static_cast<size_t>(ranks));
  for (int r = 0; r < ranks; ++r) in.push_back(test_values(dtype, r, count, begin));
  Buffer out(dtype, count);
  loom::with_type(dtype, [&]<class T> {
    using A = loom::compute_type<T>;
    for (int64_t i = 0; i < count; ++i) {
      A total = static_cast<A>(in[0].as<T>()[i]);
      for (size_t r = 1; r < in.size(); ++r) total = combine<A>(op, total, static_cast<A>(in[r].as<T>()[i]));
      if (op == loom::ReduceOp::mean) total = static_cast<A>(total / static_cast<A>(ranks));
      out.as<T>()[i] = static_cast<T>(total);
    }
  });
  return out;
}

// Equal bits, where sums are in rank order; else within what roundings between additions come to.
inline bool as_expected(const Buffer& given, const Buffer& expected) {
  if (sums_in_rank_order() || loom::is_integral(expected.dtype)) return given == expected;
  const double unit = expected.dtype == loom::f64   ? 1e-14
                      : expected.dtype == loom::f32 ? 1e-5
                      : expected.dtype == loom::f16 ? 1e-2
                                                    : 1e-1;
  const Buffer here = given;
  for (int64_t i = 0; i < expected.count; ++i)
    if (!(std::abs(here.get(i) - expected.get(i)) <= unit * (1 + std::abs(expected.get(i))))) return false;
  return given.dtype == expected.dtype && given.count == expected.count;
}
