// SPDX-License-Identifier: Apache-2.0
// Large outputs are written past the caches, short rows in tiles, long lines in blocks: the same bits as elsewhere.
#include <cmath>
#include <limits>

#include <doctest/doctest.h>

#include <loom/accelerators/random.h>
#include <loom/accelerators/threads.h>
#include <loom/autograd/engine.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/parameter.h>

#include <loom/tensor/context.h>
#include <loom/tensor/create.h>
#include <loom/tensor/raw.h>

using namespace loom;

namespace {

// f of all rows, and f of some of them alone.
template <class F>
void check_rows(const char* name, const Tensor& x, const F& f) {
  const Tensor whole = f(x);
  for (const int64_t first : {int64_t{0}, int64_t{1}, x.size(0) / 2, x.size(0) - 7}) {
    INFO(name, " from row ", first);
    CHECK(equal(narrow(whole, 0, first, 7), f(narrow(x, 0, first, 7))));
  }
}

// 1 for each of n elements that dropout keeps where `values` of the 2^16 values of its 16 bits do, else 0.
Tensor kept_of(const Philox& state, uint32_t values, int64_t n) {
  std::vector<float> kept(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t word = state.block(static_cast<uint64_t>(i / 8))[static_cast<size_t>(i % 8 / 2)];
    kept[static_cast<size_t>(i)] = (i % 2 == 0 ? word & 0xffffu : word >> 16) < values ? 1 : 0;
  }
  return from_vector(kept, {n});
}

void check_across() {
  for (const DType t : {f64, f32, bf16})
    for (const Dims& shape : {Dims{2051, 4111}, Dims{4096, 2080}}) {
      const Tensor x = randn(shape).to(t), other = randn({shape[1], shape[0]}).to(t);
      const Tensor y = x + other.t(), turned = maximum(other.t(), x);
      for (const int64_t row : {int64_t{0}, int64_t{1}, int64_t{33}, shape[0] - 1}) {
        REQUIRE(equal(y[row], x[row] + narrow(other, 1, row, 1).reshape({shape[1]})));
        REQUIRE(equal(turned[row], maximum(x[row], narrow(other, 1, row, 1).reshape({shape[1]}))));
      }
      CHECK(equal(y - other.t(), x + other.t().clone() - other.t().clone()));
      const Tensor across = other.t().clone(), less = x < other.t();
      CHECK(equal(less, x < across));
      CHECK(equal(where(less, other.t(), flip(x, {0})), where(less, across, flip(x, {0}).clone())));
    }
}

// f of x, whose elements do not lie in a row, and of a copy that is dense.
template <class F>
void check_strided(const std::string& name, const Tensor& x, const F& f) {
  CHECK_MESSAGE(equal(f(x), f(x.contiguous().clone())), name);
}

// f(y) changes y in place: within something larger, whose other elements stay, as when it is dense.
template <class F>
void check_into(const std::string& name, const Tensor& whole, const Tensor& y, const F& f) {
  const Tensor before = y.contiguous().clone(), dense = before.clone(), untouched = whole.clone();
  f(dense);
  f(y);
  CHECK_MESSAGE(equal(y, dense), name);
  y.copy_(before);
  CHECK_MESSAGE(equal(whole, untouched), name);
}

}  // namespace

TEST_CASE("large outputs: the bits of small ones") {
  manual_seed(3);
  const Tensor x = randn({4500, 1001}), weight = randn({1001}), bias = randn({1001});  // 18 MB
  check_rows("exp", x, [](const Tensor& v) { return exp(v); });
  check_rows("add", x, [&](const Tensor& v) { return v + bias; });
  check_rows("compare", x, [](const Tensor& v) { return v > 0.5; });
  check_rows("softmax", x, [](const Tensor& v) { return softmax(v, 1); });
  check_rows("log_softmax", x, [](const Tensor& v) { return log_softmax(v, 1); });
  check_rows("layer_norm", x, [&](const Tensor& v) { return layer_norm(v, {1001}, weight, bias); });
  check_rows("rms_norm", x, [&](const Tensor& v) { return rms_norm(v, {1001}, weight); });
  check_rows("softmax's gradient", x, [](const Tensor& v) {
    const Parameter p(v);
    return grad(softmax(p, 1), p, v);
  });
  check_rows("log_softmax's gradient", x, [](const Tensor& v) {
    const Parameter p(v);
    return grad(log_softmax(p, 1), p, v);
  });
  check_rows("layer_norm's gradient", x, [&](const Tensor& v) {
    const Parameter p(v), w(weight);
    return grad(layer_norm(p, {1001}, w, bias), p, v + 1.0);
  });
  check_rows("cross_entropy's gradient", x, [](const Tensor& v) {
    const Parameter p(v);
    return grad(cross_entropy(p, full({v.size(0)}, 700, {i64}), {.reduction = Reduction::sum}), p);
  });
  check_rows("relu's gradient", x, [](const Tensor& v) {
    const Parameter p(v);
    return grad(relu(p), p, v + 3.0);
  });
  check_rows("a column", x, [](const Tensor& v) { return v * narrow(v, 1, 5, 1); });
  check_rows("a choice", x, [](const Tensor& v) { return where(v > 0.0, v, -v); });
  check_rows("backwards", x, [](const Tensor& v) { return flip(v, {1}); });
  CHECK(equal(flip(flip(x, {0}), {0}), x));
}

TEST_CASE("large outputs of long rows: the bits of small ones") {
  manual_seed(11);
  const Tensor x = randn({500, 9003}), weight = randn({9003});  // 18 MB
  check_rows("softmax", x, [](const Tensor& v) { return softmax(v, 1); });
  check_rows("layer_norm", x, [&](const Tensor& v) { return layer_norm(v, {9003}, weight); });
  check_rows("softmax's gradient", x, [](const Tensor& v) {
    const Parameter p(v);
    return grad(softmax(p, 1), p, v);
  });
  check_rows("a sum of two dtypes", x, [](const Tensor& v) { return v + v.to(bf16); });
}

TEST_CASE("softmax of a row too long to be kept") {
  manual_seed(12);
  for (const DType t : {f32, f64, bf16}) {
    const Tensor x = randn({3, (int64_t{1} << 18) + 5}).to(t), exact = softmax(x.to(f64), 1);
    const double tolerance = t == bf16 ? 0x1p-8 : t == f32 ? 1e-6 : 1e-12;
    CHECK(((softmax(x, 1).to(f64) - exact).abs() / exact).max().item<double>() < tolerance);
    CHECK(std::abs(exact.sum().item<double>() - 3) < 1e-9);
  }
}

TEST_CASE("large outputs: batch norm and its gradient, channel by channel the bits of small ones") {
  manual_seed(5);
  const Tensor x = randn({131, 4, 8007});  // 16.8 MB, channels first
  const auto normal = [](const Tensor& v) { return batch_norm(v, {}, {}, {}, {}, true); };
  check_rows("batch norm", x, [&](const Tensor& v) { return transpose(normal(transpose(v, 0, 1)), 0, 1); });
  check_rows("batch norm's gradient", x, [&](const Tensor& v) {
    const Parameter p(transpose(v, 0, 1).clone());
    return transpose(grad(normal(p), p, transpose(v, 0, 1) * 2.0 + 1.0), 0, 1);
  });
  check_rows("the gradient of batch norm and ReLU", x, [&](const Tensor& v) {
    const Parameter p(transpose(v, 0, 1).clone());
    return transpose(grad(relu(normal(p)), p, transpose(v, 0, 1) * 2.0 + 1.0), 0, 1);
  });
}

TEST_CASE("large outputs of 16 bits: the bits of small ones") {
  manual_seed(7);
  const Tensor x = randn({9000, 1001}).to(bf16), weight = randn({1001}).to(bf16);  // 18 MB
  check_rows("exp", x, [](const Tensor& v) { return exp(v); });
  check_rows("softmax", x, [](const Tensor& v) { return softmax(v, 1); });
  check_rows("layer_norm", x, [&](const Tensor& v) { return layer_norm(v, {1001}, weight); });
  check_rows("layer_norm's gradient", x, [&](const Tensor& v) {
    const Parameter p(v);
    return grad(layer_norm(p, {1001}, weight), p, v);
  });
}

TEST_CASE("large outputs: of inputs that lie across them, and of every k-th element") {
  manual_seed(10);
  const int before = num_threads();
  for (const int threads : {3, 1}) {
    set_num_threads(threads);
    check_across();
  }
  set_num_threads(before);
  for (const int64_t k : {2, 3, 4, 5}) {
    const Tensor wide = randn({2100, 2003 * k + 1}), x = wide.slice(1, 1, 2003 * k + 1, k);
    const Tensor y = relu(x);
    for (const int64_t row : {0, 1, 777, 2099}) REQUIRE(equal(y[row], relu(x[row].clone())));
    CHECK(equal(y, relu(x.clone())));
  }
}

TEST_CASE("large outputs: of strided inputs and into strided memory, in f64 and bf16") {
  manual_seed(13);
  for (const DType t : {f64, bf16}) {
    const int64_t rows = 1501, columns = t == f64 ? 1403 : 5603;  // 17 MB
    const Tensor wide = randn({rows, 2 * columns + 1}).to(t), row = randn({columns}).to(t);
    const std::pair<const char*, Tensor> inputs[] = {{"transposed", randn({columns, rows}).to(t).t()},
                                                     {"every second", wide.slice(1, 1, 2 * columns + 1, 2)},
                                                     {"a part of each row", narrow(wide, 1, 3, columns)},
                                                     {"a row repeated", row.expand({rows, columns})}};
    for (const auto& [layout, x] : inputs) {
      const std::string name = str(layout, ", ", t, ": ");
      const Tensor other = abs(x) + 0.5;
      check_strided(name + "exp", x, [](const Tensor& v) { return exp(v); });
      check_strided(name + "gelu", x, [](const Tensor& v) { return gelu(v); });
      check_strided(name + "mul", x, [&](const Tensor& v) { return v * row; });
      check_strided(name + "div", x, [&](const Tensor& v) { return v / other; });
      check_strided(name + "less", x, [&](const Tensor& v) { return v < other; });
      check_strided(name + "where", x, [&](const Tensor& v) { return where(v > 0.0, v, other); });
      check_strided(name + "to f32", x, [](const Tensor& v) { return v.to(f32); });
      check_strided(name + "softmax", x, [](const Tensor& v) { return softmax(v, 1); });
      check_strided(name + "layer_norm", x, [&](const Tensor& v) { return layer_norm(v, {v.size(1)}, row); });
      check_strided(name + "cumsum", x, [](const Tensor& v) { return cumsum(v, 0); });
      check_strided(name + "relu's gradient", x, [&](const Tensor& v) {
        const Parameter p(other);
        return grad(relu(p), p, v);
      });
    }
    const Tensor across = randn({columns, rows}).to(t), addend = randn({rows, columns}).to(t);
    for (const auto& [layout, whole, y] : {std::tuple{"transposed", across, across.t()},
                                           {"every second", wide, wide.slice(1, 1, 2 * columns + 1, 2)},
                                           {"a part of each row", wide, narrow(wide, 1, 3, columns)}}) {
      const std::string name = str("into ", layout, ", ", t, ": ");
      check_into(name + "add", whole, y, [&](Tensor v) { v.add_(addend); });
      check_into(name + "mul by a row", whole, y, [&](Tensor v) { v.mul_(row); });
      check_into(name + "copy of another dtype", whole, y, [&](Tensor v) { v.copy_(addend.to(f32)); });
    }
  }
}

TEST_CASE("large outputs: rows of whole lines by a list, on any number of threads") {
  const int before = num_threads();
  for (const int64_t width : {16, 48, 1024}) {
    const int64_t count = (int64_t{17} << 18) / width + 3;  // 17 MB
    const Tensor table = randn({211, width}), index = randint(0, 211, {count});
    for (const int threads : {1, 3}) {
      set_num_threads(threads);
      const Tensor y = index_select(table, 0, index);
      const auto rows = table.span<float>(), out = y.span<float>();
      const auto list = index.span<int64_t>();
      bool same = true;
      for (size_t i = 0; i < out.size(); ++i) {
        const auto row = static_cast<size_t>(width);
        same &= out[i] == rows[static_cast<size_t>(list[i / row]) * row + i % row];
      }
      CHECK_MESSAGE(same, "rows of ", width, ", ", threads, " threads");
    }
  }
  set_num_threads(before);
}

TEST_CASE("large outputs: places of what is set, on any number of threads") {
  const int before = num_threads();
  const int64_t n = 5'000'021, first = 1'000'003, last = 1'020'000;
  const Tensor x = arange(n), dense = (x != 17) & ((x < first) | (x > last) | (x % 64 == 5));  // few in the middle
  for (const int threads : {1, 3}) {
    set_num_threads(threads);
    const Tensor places = nonzero(dense);
    const auto found = places.span<int64_t>();
    size_t at = 0;
    bool same = true;
    for (int64_t i = 0; i < n; ++i)
      if (i != 17 && (i < first || i > last || i % 64 == 5)) same &= at < found.size() && found[at++] == i;
    CHECK(same);
    CHECK(at == found.size());
  }
  set_num_threads(before);
}

TEST_CASE("dropout keeps by 16 bits an element, whatever the size and the number of threads") {
  const int before = num_threads();
  const uint32_t values = draw::values_kept(0.3);
  for (const int64_t n : {1, 7, 511, 512, 100'003, 4'500'001}) {
    const Tensor kept = kept_of(Philox{8, 1, 0}, values, n);
    for (const DType t : {f32, f64, bf16}) {
      const Tensor x = arange(n).to(t) * 0.5 + 1.0;
      for (const int threads : {1, 3}) {
        set_num_threads(threads);
        manual_seed(8);
        const Parameter p(x);
        const Tensor y = dropout(p, 0.3), dx = grad(y, p, x);
        CHECK(equal(y, (x.to(t == f64 ? f64 : f32) * kept * (65536.0 / values)).to(t)));
        CHECK(equal(dx, y));
      }
    }
  }
  set_num_threads(before);
}

TEST_CASE("short rows: a row's result does not depend on the rows around it") {
  manual_seed(4);
  for (const int64_t classes : {1, 3, 10, 32, 33}) {
    const Tensor x = randn({131, classes}) * 5.0, target = randint(0, classes, {131});
    check_rows("softmax", x, [](const Tensor& v) { return softmax(v, 1); });
    const Tensor sums = sum(softmax(x, 1), {1});
    CHECK(allclose(sums, ones({131}), 1e-5, 1e-6));
    const Parameter p(x);
    const Tensor fused = cross_entropy(p, target), plain = nll_loss(log_softmax(p, 1), target);
    CHECK(allclose(fused, plain, 1e-5, 1e-6));
    CHECK(allclose(grad(fused, p), grad(plain, p), 1e-5, 1e-7));
  }
}

TEST_CASE("long lines: cumulative sums, and the first of equal bests") {
  manual_seed(5);
  for (const int64_t n : {1, 3, 511, 512, 513, 1700}) {
    const Tensor x = randint(-50, 50, {3, n}), real = x.to(f64);
    const Tensor sums = cumsum(x, 1);
    CHECK(equal(cumsum(real, 1), sums.to(f64)));
    for (int64_t r = 0, total = 0; r < 3; ++r, total = 0)
      for (int64_t i = 0; i < n; ++i) {
        total += x[r][i].item<int64_t>();
        REQUIRE(sums[r][i].item<int64_t>() == total);
      }
    const auto [best, where] = max(real, 1);
    for (int64_t r = 0; r < 3; ++r) {
      int64_t first = 0;
      for (int64_t i = 1; i < n; ++i)
        if (x[r][i].item<int64_t>() > x[r][first].item<int64_t>()) first = i;
      CHECK(where[r].item<int64_t>() == first);
      CHECK(best[r].item<double>() == static_cast<double>(x[r][first].item<int64_t>()));
    }
  }
  Tensor x = zeros({1, 1400});
  x.narrow(1, 700, 1).fill_(std::numeric_limits<double>::quiet_NaN());
  x.narrow(1, 1300, 1).fill_(std::numeric_limits<double>::quiet_NaN());
  x.narrow(1, 200, 1).fill_(5);
  CHECK(argmax(x, 1).item<int64_t>() == 700);
  CHECK(argmin(x, 1).item<int64_t>() == 700);
}

TEST_CASE("cumprod: the gradient beside zeros is that of the formula that can be differentiated again") {
  manual_seed(6);
  for (const int zeros_a_line : {0, 1, 2}) {
    Tensor values = randn({4, 9}, {f64});
    for (int z = 0; z < zeros_a_line; ++z) values.narrow(1, 3 + 4 * z, 1).fill_(0);
    const Parameter x(values);
    const Tensor seed = randn({4, 9}, {f64});
    CHECK(allclose(grad(cumprod(x, 1), x, seed), grad(cumprod(x, 1), x, seed, {.create_graph = true}), 1e-12, 1e-12));
  }
}

TEST_CASE("rows by index: long and short ones, from strided tables too") {
  manual_seed(9);
  for (const int64_t width : {1, 63, 64, 130, 1500})
    for (const DType t : {f64, f32, bf16}) {
      const Tensor wide = randn({40, 2 * width}).to(t), table = narrow(wide, 1, width, width),
                   at = randint(0, 40, {77});
      const Tensor rows = index_select(table, 0, at);
      for (int64_t i = 0; i < 77; ++i) REQUIRE(equal(rows[i], table[at[i].item<int64_t>()]));
    }
}

TEST_CASE("i32 positions") {
  const Tensor table = arange(12).to(f32).reshape({4, 3}), at = tensor({3, 0, 3});
  CHECK(equal(embedding(at.to(i32), table), embedding(at, table)));
  CHECK(equal(index_select(table, 0, at.to(i32)), index_select(table, 0, at)));
}
