// SPDX-License-Identifier: Apache-2.0
// Tensors between the host and GPUs: what waits, what does not, and what may be written again.
#include <doctest/doctest.h>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cuda.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/create.h>
#include <loom/tensor/pinned.h>

#include "../error_of.h"

using namespace loom;
using loom::testing::error_of;

namespace {

bool skipped() {
  if (device_count(Device::cuda) > 0) return false;
  MESSAGE("skipped: " << cuda_description());
  return true;
}

Tensor numbers(int64_t count) { return arange(count).to(f32); }
std::vector<float> values(const Tensor& x) { return x.to_vector<float>(); }

}  // namespace

TEST_CASE("what was copied to a GPU may be written on the host at once, pinned or not") {
  if (skipped()) return;
  for (const bool pinned : {false, true})
    for (const bool non_blocking : {false, true}) {
      if (pinned && non_blocking) continue;  // the next case's
      Tensor x = pinned ? pin_memory(numbers(1000)) : numbers(1000);
      std::vector<Tensor> copies;
      for (int i = 0; i < 5; ++i) {
        copies.push_back(x.to(Device::cuda, non_blocking));
        x.add_(1);
      }
      for (int i = 0; i < 5; ++i) CHECK(values(copies[static_cast<size_t>(i)]) == values(numbers(1000) + i));
    }
}

TEST_CASE("pinned memory that is left to the device: released at once, written once the stream has been waited for") {
  if (skipped()) return;
  std::vector<Tensor> copies;
  copies.reserve(5);
  for (int i = 0; i < 5; ++i) copies.push_back(pin_memory(numbers(1000) + i).to(Device::cuda, true));
  for (int i = 0; i < 5; ++i) CHECK(values(copies[static_cast<size_t>(i)]) == values(numbers(1000) + i));
  const Tensor x = pin_memory(numbers(10));
  const Tensor y = x.to(Device::cuda, true);
  current_stream(Device::cuda).synchronize();
  x.zero_();
  CHECK(values(y) == values(numbers(10)));
}

TEST_CASE("a copy on the host is there when the call returns, or, in pinned memory, when the stream has come so far") {
  if (skipped()) return;
  const Tensor x = numbers(1000).to(Device::cuda);
  const Tensor there = x.to(Device::cpu);
  CHECK_FALSE(is_pinned(there));
  CHECK(values(there) == values(numbers(1000)));
  const Tensor later = (x * 2.0).to(Device::cpu, true);
  CHECK(is_pinned(later));
  current_stream(Device::cuda).synchronize();
  CHECK(values(later) == values(numbers(1000) * 2.0));
  const Tensor target = empty_pinned({1000}, f32);
  target.copy_(x, true);
  synchronize(Device::cuda);
  CHECK(values(target) == values(numbers(1000)));
  Tensor plain = zeros({1000});
  plain.copy_(x, true);  // not pinned: waits
  CHECK(values(plain) == values(numbers(1000)));
}

TEST_CASE("large tensors go in pieces; their pinned memory is handed out again") {
  if (skipped()) return;
  const Tensor x = arange((int64_t{9} << 20) + 5);  // more than 64 MiB
  const Tensor y = x.to(Device::cuda);
  x.zero_();
  CHECK(equal(y.to(Device::cpu), arange((int64_t{9} << 20) + 5)));
  for (int again = 0; again < 2; ++again) {
    CHECK(pinned_memory_stats(Device::cuda).allocated == 0);
    CHECK(pinned_memory_stats(Device::cuda).cached <= 64 << 20);  // not all of it
    x.to(Device::cuda);
  }
  synchronize(Device::cuda);
  empty_cache(Device::cuda);
  CHECK(pinned_memory_stats(Device::cuda).cached == 0);
}

TEST_CASE("copies of views, other dtypes and broadcasts, either way") {
  if (skipped()) return;
  const Tensor x = numbers(24).reshape({4, 6});
  CHECK(values(x.t().to(Device::cuda)) == values(x.t().contiguous()));
  CHECK(values(pin_memory(x).t().to(Device::cuda, true)) == values(x.t().contiguous()));
  Tensor y = zeros({4, 6}, {f64, Device::cuda});
  y.copy_(x, true);
  CHECK(values(y) == values(x));
  y.copy_(numbers(6));
  CHECK(values(y.select(0, 3)) == values(numbers(6)));
  const Tensor host = zeros({6, 4}, f16);
  host.t().copy_(x.to(Device::cuda), true);
  CHECK(values(host) == values(x.t().contiguous()));
  CHECK(empty({0, 3}).to(Device::cuda, true).shape() == Dims{0, 3});
  CHECK(pin_memory(empty({0, 3})).shape() == Dims{0, 3});
}

TEST_CASE("gradients go back the way that the values came") {
  if (skipped()) return;
  const Tensor x = numbers(6).requires_grad_();
  sum(x.to(Device::cuda, true) * 3.0).backward();
  CHECK(x.grad().device() == Device(Device::cpu));
  CHECK(values(x.grad()) == std::vector<float>(6, 3.0f));
}

TEST_CASE("from one GPU to another, in the order of both") {
  if (skipped() || device_count(Device::cuda) < 2) return;
  const Device second(Device::cuda, 1);
  Tensor x = numbers(1000).to(Device::cuda);
  std::vector<Tensor> copies;
  for (int i = 0; i < 4; ++i) {
    copies.push_back(x.to(second));
    x.add_(1);
  }
  for (int i = 0; i < 4; ++i) CHECK(values(copies[static_cast<size_t>(i)]) == values(numbers(1000) + i));
  CHECK(values(copies[0].to(Device::cuda)) == values(numbers(1000)));
}

TEST_CASE("what cannot be pinned") {
  CHECK(error_of([] {
          pin_memory(ones({2}), {Device::cuda, device_count(Device::cuda)});
        }).starts_with("device cuda:"));
  CHECK_FALSE(is_pinned(ones({2})));
  if (skipped()) return;
  CHECK(error_of([] {
          pin_memory(ones({2}, {f32, Device::cuda}));
        }) == "pin_memory: the tensor is on cuda:0, only the CPU's can be pinned");
  const Tensor x = pin_memory(numbers(4));
  CHECK(pin_memory(x).is_same(x));
  CHECK(is_pinned(x.narrow(0, 2, 2)));
}
