// SPDX-License-Identifier: Apache-2.0
// Images of 16 bits stay with their channels last on a GPU from convolution to convolution, and nobody copies them into
// another order on the way. Without a GPU the device is one that the host plays.
#include <cstdlib>
#include <string_view>

#include <loom/accelerators/cuda.h>
#include <loom/accelerators/fused.h>
#include <loom/autograd/engine.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/context.h>
#include <loom/tensor/create.h>
#include <loom/tensor/raw.h>

#include "kernel_test.h"

using namespace loom;

namespace {

bool has_gpu() {
  if (device_count(Device::cuda) > 0) return true;
  MESSAGE("skipped: " << cuda_description());
  return false;
}

double worst(const Tensor& got, const Tensor& expected) {
  const Tensor wide = expected.detach().to(Device()).to(f64);
  return (abs(got.detach().to(Device()).to(f64) - wide) / (abs(wide) + 1)).max().item<double>();
}

Tensor image(const Dims& shape, DType t) {
  return randn({shape[0], shape[2], shape[3], shape[1]}).to(t).to(Device::cuda).permute({0, 3, 1, 2});
}

// How many blocks of memory f asks for, its results included.
template <class F>
int64_t blocks_of(const F& f) {
  const int64_t before = memory_stats(Device::cuda).allocations;
  f();
  return memory_stats(Device::cuda).allocations - before;
}

using Net = std::function<Tensor(const std::vector<Tensor>&)>;

// Convolutions, norms, a residual, both poolings.
Tensor small_net(const std::vector<Tensor>& x) {
  const Tensor first = batch_norm_relu(conv2d(x[0], x[1], {}, {.padding = 1}), {}, {}, {}, x[2], x[3], true);
  const Tensor pooled = max_pool2d(first, 2);
  const Tensor second = relu(batch_norm(conv2d(pooled, x[4], x[5], {.padding = 1}), {}, {}, x[2], x[3], true) + pooled);
  return avg_pool2d(second, 2);
}

struct Outcome {
  Tensor y;
  std::vector<Tensor> grads;
};

Outcome run(const std::vector<Tensor>& given, DType t, Device device) {
  std::vector<Tensor> inputs;
  inputs.reserve(given.size());
  for (const Tensor& x : given) inputs.push_back(x.to(t).to(device).clone().requires_grad_());
  Outcome out{small_net(inputs), {}};
  sum(out.y * out.y).backward();
  for (const Tensor& x : inputs) out.grads.push_back(x.grad());
  return out;
}

}  // namespace

TEST_CASE("a GPU's images: what follows a convolution keeps its layout") {
  if (!has_gpu()) return;
  const Tensor x = randn({2, 8, 6, 6}).to(bf16).to(Device::cuda), w = randn({8, 8, 3, 3}).to(bf16).to(Device::cuda);
  const Tensor y = conv2d(x, w, {}, {.padding = 1});
  CHECK(raw::is_channels_last(y));
  CHECK(raw::is_channels_last(relu(y)));
  CHECK(raw::is_channels_last(y + y));
  CHECK(raw::is_channels_last(y * 2.0));
  CHECK(raw::is_channels_last(x + y));  // where one is
  CHECK(raw::is_channels_last(y.to(f32)));
  CHECK(raw::is_channels_last(max_pool2d(y, 2)));
  CHECK(raw::is_channels_last(avg_pool2d(y, 2)));
  CHECK(raw::is_channels_last(batch_norm(y, {}, {}, {}, {}, true)));
  CHECK(raw::is_channels_last(batch_norm_relu(y, y, {}, {}, {}, {}, true)));
  CHECK(y.contiguous().is_contiguous());
  CHECK(y.to(Device()).is_contiguous());
  CHECK(y.flatten(1).is_contiguous());
  CHECK(!raw::is_channels_last(conv2d(x.to(f32), w.to(f32), {}, {.padding = 1})));  // f32 has no use for it
}

TEST_CASE("a GPU's images: a network of 16 bits and its gradients") {
  if (!has_gpu()) return;
  manual_seed(1);
  std::vector<Tensor> given{randn({4, 8, 8, 8}), randn({8, 8, 3, 3}) * 0.2, rand({8}) + 0.5,
                            randn({8}),          randn({8, 8, 3, 3}) * 0.2, randn({8})};
  for (const DType t : {f32, bf16}) {
    CAPTURE(to_string(t));
    for (Tensor& x : given) x = x.to(t);
    const Outcome expected = run(given, f64, Device()), got = run(given, t, Device::cuda);
    const Outcome peer = run(given, t, Device());  // bf16 decides anew on which side of 0 values lie
    CHECK(worst(got.y, expected.y) < 16 * kernel_test::epsilon(t));
    for (size_t i = 0; i < given.size(); ++i) {
      CAPTURE(i);
      const auto off = [&](const Outcome& of) {
        return norm(of.grads[i].to(Device()).to(f64) - expected.grads[i].to(f64)).item<double>();
      };
      CHECK(off(got) < 2 * off(peer) + 1e-4);
    }
  }
}

TEST_CASE("a GPU's images: no memory but that of results, and of sums over channels") {
  if (!has_gpu()) return;
  manual_seed(2);
  const Dims shape{2, 16, 8, 8};
  const Tensor x = image(shape, bf16), y = image(shape, bf16), scale = rand({16}).to(Device::cuda),
               offset = rand({16}).to(Device::cuda);
  REQUIRE(raw::is_channels_last(x));
  const NoGrad off;
  CHECK(blocks_of([&] { relu(x); }) == 1);
  CHECK(blocks_of([&] { add(x, y); }) == 1);
  CHECK(blocks_of([&] { relu_backward(x, y); }) == 1);
  CHECK(blocks_of([&] { max_pool2d(x, 2); }) == 2);  // and the indices
  CHECK(blocks_of([&] { avg_pool2d(x, 2); }) == 1);
  const Tensor mean = zeros({16}, {f32, Device::cuda}), var = ones({16}, {f32, Device::cuda}), dw = zeros_like(mean),
               db = zeros_like(mean);
  Accelerator& kernels = accelerator(Device::cuda);
  const auto planes = [](const Tensor& t) { return raw::reshape(t, {2, 16, 64}); };
  const Tensor out = raw::uninitialized_like("test", {&x}, shape, bf16),
               more = raw::uninitialized_like("test", {&x}, shape, bf16);
  const Tensor in = planes(x), beside = planes(y), to = planes(out), to_more = planes(more);
  CHECK(View(in).data == View(x).data);
  CHECK(blocks_of([&] { kernels.batch_statistics(mean, var, in); }) == 1);
  CHECK(blocks_of([&] { kernels.batch_norm(to, in, mean, var, scale, offset, 1e-5); }) == 1);
  CHECK(blocks_of([&] { kernels.batch_norm_relu(to, in, beside, mean, var, scale, offset, 1e-5); }) == 1);
  CHECK(blocks_of([&] {
          kernels.batch_norm_relu_grad(to_more, View(), dw, db, beside, to, in, mean, var, scale, 1e-5, true);
        }) == 2);
}

// By cuDNN, or what plays it: LOOM_CUDNN=0 takes columns.
TEST_CASE("a GPU's images: convolutions copy those that lie in another order, and no others") {
  if (!has_gpu()) return;
  const char* const dnn = std::getenv("LOOM_CUDNN");
  if (dnn != nullptr && std::string_view(dnn) == "0") return;
  manual_seed(3);
  const Tensor x = image({2, 16, 8, 8}, bf16), dy = image({2, 16, 8, 8}, bf16);
  const Tensor w = randn({16, 16, 3, 3}).to(bf16).to(Device::cuda);
  const ConvGeometry g{.padding = {1, 1}};
  const Tensor rows_x = x.contiguous(), rows_dy = dy.contiguous();
  const auto extra_of_rows = [](const auto& f, const Tensor& image, const Tensor& rows) {
    f(image);  // the plans are made
    f(rows);
    return blocks_of([&] { f(rows); }) - blocks_of([&] { f(image); });
  };
  CHECK(extra_of_rows([&](const Tensor& t) { raw::conv2d(t, w, {}, g); }, x, rows_x) == 1);
  CHECK(extra_of_rows([&](const Tensor& t) { raw::conv2d_grad_input(t, w, x.shape(), g); }, dy, rows_dy) == 1);
  CHECK(extra_of_rows([&](const Tensor& t) { raw::conv2d_grad_weight(t, x, w.shape(), g); }, dy, rows_dy) == 1);
}
