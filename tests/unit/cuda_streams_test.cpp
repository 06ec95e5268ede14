// SPDX-License-Identifier: Apache-2.0
// Streams of a GPU: what comes before what, and until when memory is kept. Without a GPU the device is one that the
// host plays (tests/cuda/emulated), whose streams take turns at random.
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cuda.h>
#include <loom/accelerators/sync_debug.h>
#include <loom/autograd/ops.h>
#include <loom/tensor/create.h>

#include "../error_of.h"

using namespace loom;
using loom::testing::error_of;

namespace {

constexpr int rounds = 40;
const Device gpu(Device::cuda);

bool has_device() {
  if (device_count(Device::cuda) > 0) return true;
  MESSAGE("skipped: " << cuda_description());
  return false;
}

bool all_equal(const Tensor& x, double value) { return equal(x.to(Device()), full({x.numel()}, value)); }

}  // namespace

TEST_CASE("a stream that waits for an event sees what came before it") {
  if (!has_device()) return;
  const Stream main = current_stream(gpu), side = stream(gpu, Lane::copy);
  const Tensor x = zeros({100}, {f32, gpu}), y = zeros({100}, {f32, gpu});
  for (int i = 1; i <= rounds; ++i) {
    x.fill_(i);
    side.wait(main.record());
    {
      const StreamScope scope(side);
      y.copy_(x);
    }
    main.wait(side.record());
  }
  CHECK(all_equal(y, rounds));
}

TEST_CASE("memory that another stream uses is not handed out before that is over") {
  if (!has_device()) return;
  Accelerator& device = accelerator(gpu);
  const Stream main = current_stream(gpu), side = stream(gpu, Lane::communication);
  std::vector<Tensor> copies;
  copies.reserve(rounds);
  for (int i = 0; i < rounds; ++i) {
    const Tensor x = full({64}, i, {f32, gpu});
    side.wait(main.record());
    device.use_by(View(x).data, side.handle());
    const StreamScope scope(side);
    copies.push_back(x.clone());
  }
  synchronize(gpu);
  for (int i = 0; i < rounds; ++i) CHECK(all_equal(copies[static_cast<size_t>(i)], i));
}

TEST_CASE("an event is done when its stream has come to it") {
  if (!has_device()) return;
  const Tensor x = zeros({100}, {f32, gpu});
  for (int i = 0; i < rounds; ++i) x.fill_(i);
  const Event end = current_stream(gpu).record();
  while (!end.is_done()) continue;
  CHECK(Event().is_done());
  const StreamScope scope(stream(gpu, Lane::copy));  // not behind the work that is done
  CHECK(all_equal(x, rounds - 1));
}

TEST_CASE("sync debug: waits of this thread are errors, work is not") {
  if (!has_device()) return;
  Tensor y;
  {
    const SyncDebugScope scope(SyncDebugMode::error);
    y = full({4}, 2, {f32, gpu}) * 3.0;
    const std::string error = "the host would wait for cuda:0, which SyncDebugMode::error forbids";
    CHECK(error_of([&] { y.to(Device()); }) == error);
    CHECK(error_of([&] { sum(y).item<float>(); }) == error);
    CHECK(error_of([] { synchronize(gpu); }) == error);
    CHECK(error_of([] { current_stream(gpu).synchronize(); }) == error);
    {
      const SyncDebugScope inner(SyncDebugMode::off);
      CHECK(all_equal(y, 6));
    }
    std::thread([&] { CHECK(all_equal(y, 6)); }).join();
    CHECK(sync_debug_mode() == SyncDebugMode::error);
  }
  CHECK(all_equal(y, 6));
}

TEST_CASE("the host's memory may change after a copy from it") {
  if (!has_device()) return;
  const Tensor host = full({100}, 1), x = zeros({100}, {f32, gpu});
  x.copy_(host);
  host.fill_(2);
  CHECK(all_equal(x, 1));
}

TEST_CASE("a copy between devices comes after what was written, before what is written next") {
  if (!has_device()) return;
  if (device_count(Device::cuda) == 1) {  // not "skipped: ", which stands for the whole file
    MESSAGE("there is one device only");
    return;
  }
  const Tensor x = zeros({100}, {f32, gpu});
  std::vector<Tensor> copies;
  copies.reserve(rounds);
  for (int i = 0; i < rounds; ++i) {
    x.fill_(i);
    copies.push_back(x.to(Device(Device::cuda, 1)));
  }
  x.fill_(-1);
  for (int i = 0; i < rounds; ++i) CHECK(all_equal(copies[static_cast<size_t>(i)], i));
}
