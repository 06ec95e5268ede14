// SPDX-License-Identifier: Apache-2.0
// Tensors of more than 2^31 elements on a GPU: rows of them are what the op gives for these rows alone. Where the host
// plays the device, or its memory is too small, the same with tiny ones.
#include <cmath>
#include <functional>

#include <loom/accelerators/block_pool.h>
#include <loom/autograd/engine.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/parameter.h>
#include <loom/nn/optim/adam.h>
#include <loom/tensor/context.h>
#include <loom/tensor/create.h>

#include "gpu.h"
#include "op_sweep/checks.h"

using namespace loom;
using gpu_test::has_gpu;

namespace {

constexpr int64_t beyond = int64_t{1} << 31;
const Device gpu = Device::cuda;

// As many rows of `width` elements as are more than 2^31.
int64_t rows_of(int64_t width) { return (gpu_test::is_quick() ? 4096 : beyond) / width + 16; }

// Memory is given back before and after, so that one case is all that is there.
void with_memory(const char* name, const std::function<void()>& f) {
  if (!has_gpu()) return;
  INFO(std::string(name));
  empty_cache(gpu);
  try {
    f();
  } catch (const OutOfMemory& error) {
    MESSAGE(name << ": not run: " << error.what());
  }
  empty_cache(gpu);
}

using Function = std::function<Tensor(const Tensor&)>;

// Rows of f(x) at the start, in the middle, around element 2^31 and at the end against f of these rows.
void check_rows(const char* name, const Tensor& x, const Function& f) {
  with_memory(name, [&] {
    const Tensor whole = f(x);
    for (const int64_t first : {int64_t{0}, x.size(0) / 2, x.size(0) - 12, x.size(0) - 4}) {
      CAPTURE(first);
      const Tensor part = f(narrow(x, 0, first, 4));
      CHECK(sweep::distance(narrow(whole, 0, first, 4).to(Device()), part.to(Device())) <= 0x1p-6);
    }
  });
}

Function gradient_of(const Function& f) {
  return [f](const Tensor& x) {
    const Parameter p(x);
    return grad(f(p), p, x);
  };
}

Tensor drawn(const Dims& shape) { return randn(shape, {bf16, gpu}); }

}  // namespace

TEST_CASE("beyond 2^31 elements: elementwise, copies, rows") {
  if (!has_gpu()) return;
  constexpr int64_t width = 1031;
  manual_seed(3);
  const Tensor x = drawn({rows_of(width), width}), bias = drawn({width});
  const Tensor order = flip(arange(width, {i64, gpu}), {0});
  check_rows("exp", x, [](const Tensor& v) { return exp(v); });
  check_rows("exp's gradient", x, gradient_of([](const Tensor& v) { return exp(v); }));
  check_rows("add", x, [&](const Tensor& v) { return v + bias; });
  check_rows("compare", x, [](const Tensor& v) { return (v > 0.5).to(u8); });
  check_rows("where", x, [](const Tensor& v) { return where(v > 0.0, v, -v); });
  check_rows("cast", x, [](const Tensor& v) { return v.to(f16); });
  check_rows("flip", x, [](const Tensor& v) { return flip(v, {1}); });
  check_rows("transposed copy", x, [](const Tensor& v) { return v.t().contiguous().t(); });
  check_rows("columns", x, [](const Tensor& v) { return v.slice(1, 0, v.size(1), 2).contiguous(); });
  check_rows("index_select", x, [&](const Tensor& v) { return index_select(v, 1, order); });
  check_rows("cumsum", x, [](const Tensor& v) { return cumsum(v, 1); });
  check_rows("softmax", x, [](const Tensor& v) { return softmax(v, 1); });
  check_rows("softmax's gradient", x, gradient_of([](const Tensor& v) { return softmax(v, 1); }));
  check_rows("layer_norm", x, [&](const Tensor& v) { return layer_norm(v, {width}, bias, bias); });
  check_rows("layer_norm's gradient", x,
             gradient_of([&](const Tensor& v) { return layer_norm(v, {width}, bias, bias); }));
  check_rows("sum of rows", x, [](const Tensor& v) { return sum(v, {1}, true); });
  check_rows("argmax of rows", x, [](const Tensor& v) { return argmax(v, 1, true); });
}

TEST_CASE("beyond 2^31 elements: reductions of everything") {
  with_memory("u8", [] {
    const int64_t n = rows_of(1);
    Tensor x = zeros({n}, {u8, gpu});
    x.fill_(1);
    CHECK(sum(x).item<int64_t>() == n);
    narrow(x, 0, n - 3, 1).fill_(2);
    CHECK(argmax(x).item<int64_t>() == n - 3);
    CHECK(max(x).item<int64_t>() == 2);
    CHECK(equal(nonzero(x == 2).to(Device()), tensor({n - 3}).reshape({1, 1})));
    const Tensor places = arange(n, {i64, gpu});
    CHECK(places[n - 1].item<int64_t>() == n - 1);
  });
}

TEST_CASE("beyond 2^31 elements: products, convolutions, pools, attention, losses") {
  if (!has_gpu()) return;
  manual_seed(3);
  with_memory("matmul", [] {
    const Tensor b = drawn({64, 1024});
    check_rows("matmul", drawn({rows_of(1024), 64}), [&](const Tensor& v) { return matmul(v, b); });
  });
  with_memory("images", [] {
    const Tensor x = drawn({rows_of(8 * 32 * 32), 8, 32, 32}), w = drawn({8, 8, 3, 3});
    const auto convolved = [&](const Tensor& v) { return conv2d(v, w, {}, {.padding = 1}); };
    check_rows("conv2d", x, convolved);
    check_rows("conv2d's gradient", x, gradient_of(convolved));
    check_rows("max_pool2d", x, [](const Tensor& v) { return max_pool2d(v, 2); });
    check_rows("avg_pool2d", x, [](const Tensor& v) { return avg_pool2d(v, 2); });
  });
  with_memory("attention", [] {
    const auto attend = [](const Tensor& v) { return scaled_dot_product_attention(v, v, v, {.is_causal = true}); };
    check_rows("attention", drawn({rows_of(16 * 128 * 64), 16, 128, 64}), attend);
  });
  with_memory("cross_entropy", [] {
    const Tensor x = drawn({rows_of(50304), 50304});
    const auto loss = [](const Tensor& v) {
      return cross_entropy(v, full({v.size(0)}, 50303, {i64, gpu}), {.reduction = Reduction::none});
    };
    check_rows("cross_entropy", x, loss);
    check_rows("cross_entropy's gradient", x, [&](const Tensor& v) {
      const Parameter p(v);
      return grad(sum(loss(p)), p);
    });
  });
}

TEST_CASE("beyond 2^31 elements: an optimizer's step") {
  with_memory("AdamW", [] {
    const auto stepped = [](int64_t n) {
      Parameter p(full({n}, 1, {f32, gpu}));
      p.set_grad(full({n}, 0.5, {f32, gpu}));
      optim::AdamW({{"p", p}}, {.lr = 0.1}).step();
      return narrow(p, 0, n - 5, 5).to(Device());
    };
    CHECK(equal(stepped(rows_of(1)), stepped(5)));
  });
}
