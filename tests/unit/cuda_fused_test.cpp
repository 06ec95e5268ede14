// SPDX-License-Identifier: Apache-2.0
// Several ops in one on a GPU: against the plain ones, and what they do to memory. Without a GPU the device is one that
// the host plays.
#include <loom/accelerators/cuda.h>
#include <loom/accelerators/fused.h>
#include <loom/autograd/autocast.h>
#include <loom/autograd/engine.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/parameter.h>
#include <loom/fabric/fabric.h>
#include <loom/nn/linear.h>
#include <loom/nn/optim/sgd.h>
#include <loom/tensor/context.h>
#include <loom/tensor/create.h>

#include "../error_of.h"
#include "kernel_test.h"

using namespace loom;
using kernel_test::epsilon;
using testing::error_of;

namespace {

bool has_gpu() {
  if (device_count(Device::cuda) > 0) return true;
  MESSAGE("skipped: " << cuda_description());
  return false;
}

double worst(const Tensor& got, const Tensor& expected) {
  const Tensor off = abs(got.detach().to(Device()).to(f64) - expected.detach().to(Device()).to(f64));
  return off.numel() == 0 ? 0 : (off / (abs(expected.detach().to(Device()).to(f64)) + 1)).max().item<double>();
}

struct Outcome {
  Tensor y;
  std::vector<Tensor> grads;
};

// f's result and the gradients of its arguments, for a fixed cotangent.
Outcome differentiate(const std::vector<Tensor>& given, DType t, Device device,
                      const std::function<Tensor(const std::vector<Tensor>&)>& f) {
  std::vector<Tensor> inputs;
  inputs.reserve(given.size());
  for (const Tensor& x : given) inputs.push_back(x.to(t).to(device).clone().requires_grad_());
  Outcome out{f(inputs), {}};
  const Tensor weights = cos(arange(out.y.numel()).to(f64)).reshape(out.y.shape());
  sum(out.y * weights.to(out.y.dtype()).to(device)).backward();
  for (const Tensor& x : inputs) out.grads.push_back(x.grad());
  return out;
}

void check_alike(const Outcome& got, const Outcome& expected, double tolerance) {
  CHECK(worst(got.y, expected.y) < tolerance);
  for (size_t i = 0; i < got.grads.size(); ++i) {
    CAPTURE(i);
    CHECK(worst(got.grads[i], expected.grads[i]) < tolerance);
  }
}

}  // namespace

TEST_CASE("a GPU's MLP with GELU is two linear layers") {
  if (!has_gpu()) return;
  manual_seed(1);
  // Hidden extents that kernels with a GELU take, and others.
  for (const auto& [rows, in, hidden, out] :
       {std::array<int64_t, 4>{5, 8, 16, 8}, {3, 4, 7, 2}, {17, 24, 40, 12}, {1, 8, 8, 8}}) {
    const std::vector<Tensor> given{randn({rows, in}), randn({hidden, in}) * 0.3, randn({hidden}),
                                    randn({out, hidden}) * 0.3, randn({out})};
    for (const DType t : {f64, f32, f16, bf16}) {
      CAPTURE(hidden);
      CAPTURE(to_string(t));
      std::vector<Tensor> rounded;
      rounded.reserve(given.size());
      for (const Tensor& x : given) rounded.push_back(x.to(t));
      const auto fused = [](const std::vector<Tensor>& x) { return gelu_mlp(x[0], x[1], x[2], x[3], x[4]); };
      const auto plain = [](const std::vector<Tensor>& x) {
        return linear(gelu_tanh(linear(x[0], x[1], x[2])), x[3], x[4]);
      };
      check_alike(differentiate(rounded, t, Device::cuda, fused), differentiate(rounded, f64, Device(), plain),
                  64 * epsilon(t));
    }
  }
}

TEST_CASE("a GPU's linear layers add to gradients that are there") {
  if (!has_gpu()) return;
  manual_seed(2);
  const Tensor x = randn({6, 8}).to(Device::cuda), weight = randn({16, 8}).to(Device::cuda).requires_grad_(),
               bias = randn({16}).to(Device::cuda).requires_grad_();
  sum(linear(x, weight, bias)).backward();
  const Tensor first = weight.grad().clone(), of_bias = bias.grad().clone();
  const void* const place = View(weight.grad()).data;
  sum(linear(x, weight, bias)).backward();
  CHECK(View(weight.grad()).data == place);
  CHECK(worst(weight.grad(), first * 2) < 1e-6);
  CHECK(worst(bias.grad(), of_bias * 2) < 1e-6);
}

TEST_CASE("a GPU's norms of sums: rows of any length, branches of 16 bits") {
  if (!has_gpu()) return;
  manual_seed(3);
  for (const int64_t n : {1, 7, 8, 64, 96, 1000, 1032, 8200}) {
    for (const DType t : {f64, f32, f16, bf16})
      for (const bool rms : {false, true}) {
        CAPTURE(n);
        CAPTURE(to_string(t));
        const std::vector<Tensor> given{randn({5, n}).to(t), randn({5, n}).to(t), randn({n}).to(t)};
        const auto f = [&](const std::vector<Tensor>& x) {
          const auto [stream, normal] =
              rms ? add_rms_norm(x[0], x[1], {n}, x[2], 1e-3) : add_layer_norm(x[0], x[1], {n}, x[2], {}, 1e-3);
          return stream * 0.5 + normal;
        };
        check_alike(differentiate(given, t, Device::cuda, f), differentiate(given, f64, Device(), f), 64 * epsilon(t));
      }
    const Tensor x = randn({5, n}), half = randn({5, n}).to(bf16);
    for (const DType t : {bf16, f16}) {
      const auto [stream, normal] = add_layer_norm(x.to(Device::cuda), half.to(t).to(Device::cuda), {n});
      CHECK(stream.dtype() == f32);
      CHECK(worst(stream, x + half.to(t).to(f32)) < 1e-6);
      CHECK(worst(normal, layer_norm(x + half.to(t).to(f32), {n})) < 1e-4);
    }
  }
}

TEST_CASE("a GPU's batch norm with ReLU: layouts, with and without what is added") {
  if (!has_gpu()) return;
  manual_seed(4);
  for (const Dims& shape : {Dims{3, 8, 4, 6}, Dims{2, 5, 3, 3}, Dims{4, 16, 1, 1}, Dims{6, 9}})
    for (const bool last : {false, true}) {
      CAPTURE(to_string(shape));
      CAPTURE(last);
      const auto lay = [&](const Tensor& x) {
        if (!last || x.dim() != 4) return x;
        return x.permute({0, 2, 3, 1}).contiguous().permute({0, 3, 1, 2});
      };
      const int64_t channels = shape[1];
      const std::vector<Tensor> given{randn(shape), randn(shape), rand({channels}) + 0.5, randn({channels})};
      const auto joined = [&](const std::vector<Tensor>& x) {
        return batch_norm_relu(lay(x[0]), lay(x[1]), {}, {}, x[2], x[3], true);
      };
      const auto alone = [&](const std::vector<Tensor>& x) {
        return batch_norm_relu(lay(x[0] + x[1]), {}, {}, {}, x[2], x[3], true);
      };
      for (const auto& f : {std::function<Tensor(const std::vector<Tensor>&)>(joined), {alone}})
        check_alike(differentiate(given, f32, Device::cuda, f), differentiate(given, f64, Device(), f), 1e-4);
    }
}

namespace {

// The most that the device held while a classifier of `classes` was differentiated; the logits held or not.
int64_t peak_of_loss(int64_t classes, bool hold) {
  const Tensor x = randn({64, 16}).to(Device::cuda), weight = randn({classes, 16}).to(Device::cuda).requires_grad_();
  const Tensor target = randint(0, classes, {64}).to(Device::cuda);
  Tensor held = linear(x, weight);
  const Tensor loss = cross_entropy(held, target);
  if (!hold) held = Tensor();
  reset_peak_memory_stats(Device::cuda);
  const int64_t before = memory_stats(Device::cuda).allocated;
  loss.backward();
  const int64_t most = memory_stats(Device::cuda).peak_allocated - before;
  const Tensor expected_logits = linear(x.to(Device()), weight.detach().to(Device()).requires_grad_());
  if (hold) CHECK(worst(held, expected_logits) < 1e-5);
  const Tensor own = weight.detach().to(Device()).requires_grad_();
  cross_entropy(linear(x.to(Device()), own), target.to(Device())).backward();
  CHECK(worst(weight.grad(), own.grad()) < 1e-5);
  return most;
}

}  // namespace

TEST_CASE("a GPU's cross entropy writes its gradient over logits that nobody holds") {
  if (!has_gpu()) return;
  manual_seed(5);
  constexpr int64_t classes = 1024, logits = 64 * classes * 4;
  CHECK(peak_of_loss(classes, true) >= logits);
  CHECK(peak_of_loss(classes, false) < logits);
}

TEST_CASE("a GPU's cross entropy leaves alone what is wanted again, and what others have") {
  if (!has_gpu()) return;
  manual_seed(6);
  const Tensor target = randint(0, 12, {9}).to(Device::cuda);
  const Tensor leaf = randn({9, 12}).to(Device::cuda).requires_grad_(), before = leaf.detach().clone();
  const Tensor loss = cross_entropy(leaf.reshape({9, 12}), target);  // a view of somebody's memory
  loss.backward({}, true);
  CHECK(worst(leaf, before) == 0);
  const Tensor weight = randn({12, 12}).to(Device::cuda).requires_grad_();
  const Tensor twice = cross_entropy(matmul(before, weight), target);
  twice.backward({}, true);
  const Tensor first = weight.grad().clone();
  weight.set_grad(Tensor());
  twice.backward();
  CHECK(worst(weight.grad(), first) == 0);
}

TEST_CASE("a GPU's cross entropy under autocast takes logits of 16 bits and gives f32") {
  if (!has_gpu()) return;
  manual_seed(7);
  const Tensor x = randn({9, 16}), w = randn({12, 16}), target = randint(0, 12, {9});
  const auto run = [&](Device device) {
    const Tensor weight = w.to(device).clone().requires_grad_();
    const Autocast region(bf16);
    const Tensor loss = cross_entropy(linear(x.to(device), weight), target.to(device));
    loss.backward();
    return std::pair(loss, weight.grad());
  };
  const auto [loss, grad] = run(Device::cuda);
  const auto [expected, expected_grad] = run(Device());
  CHECK(loss.dtype() == f32);
  CHECK(grad.dtype() == f32);
  CHECK(worst(loss, expected) < 2e-2);
  CHECK(worst(grad, expected_grad) < 2e-2);
}

TEST_CASE("a GPU's norm of all gradients, and what they are scaled with") {
  if (!has_gpu()) return;
  manual_seed(8);
  std::vector<Tensor> grads;
  std::vector<UpdatePiece> pieces;
  double squares = 0;
  const DType dtypes[] = {f32, f64, f16, bf16};
  for (int i = 0; i < 1000; ++i) {  // more than one table holds
    const int64_t n = i == 7 ? 10000 : i * 3 % 8;
    const Tensor storage = randn({n + 1}).to(dtypes[i % 4]).to(Device::cuda);
    grads.push_back(i % 3 == 0 ? storage.slice(0, 1, n + 1, 1) : storage.slice(0, 0, n, 1));  // some off 16 bytes
    const double factor = is_half(grads.back().dtype()) ? 0.25 : 1;
    squares += square(grads.back().to(Device()).to(f64)).sum().item<double>() * factor * factor;
    UpdatePiece& piece = pieces.emplace_back();
    piece.numel = n;
    piece.grad = {View(grads.back()).data, grads.back().dtype()};
  }
  FusedKernels& kernels = *accelerator(Device::cuda).fused();
  const Tensor total = full({}, std::nan(""), {f64, Device::cuda}), factor = full({}, 0.25, {f32, Device::cuda});
  kernels.grad_norm(total, pieces, factor);
  CHECK(total.item<double>() == doctest::Approx(std::sqrt(squares)).epsilon(1e-12));
  const Tensor before = grads[7].to(Device()), by = full({}, 0.1, {f64, Device::cuda});
  const Tensor half_before = grads[3].to(Device());
  kernels.scale_grads(pieces, by);
  CHECK(worst(grads[7], before * 0.1) <= epsilon(grads[7].dtype()));
  CHECK(worst(grads[3], half_before.to(f32) * 0.1) <= epsilon(bf16));
  kernels.grad_norm(total, {}, View());
  CHECK(total.item<double>() == 0);
}

TEST_CASE("a GPU tells of a norm that is not finite when the host waits") {
  if (!has_gpu()) return;
  FusedKernels& kernels = *accelerator(Device::cuda).fused();
  const Tensor norm = full({}, 3.0, {f64, Device::cuda});
  kernels.require_finite_norm(norm);
  synchronize(Device::cuda);
  for (const double bad : {std::numeric_limits<double>::infinity(), std::nan("")}) {
    kernels.require_finite_norm(full({}, bad, {f64, Device::cuda}));
    CHECK(error_of([] { synchronize(Device::cuda); }) ==
          "clip_gradients: the norm of the gradients is not finite, so they cannot be scaled; set "
          "error_if_nonfinite=false to scale anyway");
  }
  synchronize(Device::cuda);
}

TEST_CASE("a GPU's clipping waits for nothing, and tells of a norm that is not finite later") {
  if (!has_gpu()) return;
  Fabric fabric({.accelerator = "cuda"});
  fabric.launch([&] {
    nn::Linear fc(4, 3);
    optim::SGD sgd(nn::parameters(fc), {.lr = 0});
    auto [model, optimizer] = fabric.setup(fc, sgd);
    const auto clip = [&, &net = model, &steps = optimizer](double scale) {
      steps.zero_grad();
      fabric.backward(sum(net(fabric.to_device(full({2, 4}, scale)))));
      return fabric.clip_gradients(net, steps, {.max_norm = 0.5});
    };
    const Tensor norm = clip(1);
    const double own = std::sqrt(3 * 4 * 4 + 3 * 4);  // of 2s in the weight's and the bias's gradients
    CHECK(norm.item<double>() == doctest::Approx(own));
    CHECK(fc.bias.grad().to(Device())[0].item<float>() == doctest::Approx(2 * 0.5 / own));
    clip(std::numeric_limits<double>::infinity());
    CHECK(error_of([] { synchronize(Device::cuda); }).starts_with("clip_gradients: the norm of the gradients"));
  });
}
