// SPDX-License-Identifier: Apache-2.0
// Plans that are chosen by the clock (LOOM_AUTOTUNE=1, which tests/cuda/ways.txt sets): the results are what they are
// without, also when the first use is recorded into a graph.
#include <loom/autograd/ops.h>
#include <loom/tensor/create.h>
#include <loom/tensor/device_graph.h>

#include "gpu.h"

using namespace loom;

namespace {

// A 1 x 1 convolution of small whole numbers, which every order of sums gives alike.
struct Small {
  Tensor x = arange(0, 16).to(f32).reshape({1, 4, 2, 2}), w = arange(-8, 8).to(f32).reshape({4, 4, 1, 1});
  Tensor expected = conv2d(x, w);
};

}  // namespace

TEST_CASE("tuned convolutions have their results, the first time and later") {
  if (!gpu_test::has_gpu()) return;
  const Small s;
  const Tensor x = s.x.to(Device::cuda), w = s.w.to(Device::cuda);
  for (int i = 0; i < 3; ++i) CHECK(equal(conv2d(x, w).to(Device()), s.expected));
}

TEST_CASE("what is first used in a capture is tuned later, and the graph stays right") {
  if (!gpu_test::has_gpu()) return;
  const Small s;
  const Tensor x = s.x.to(Device::cuda), w = s.w.transpose(0, 1).contiguous().to(Device::cuda);
  const Tensor expected = conv2d(s.x, s.w.transpose(0, 1).contiguous());
  const Tensor two = cat({x, x}, 0);  // a shape of its own
  DeviceGraph graph(Device::cuda);
  Tensor y;
  graph.capture([&] { y = conv2d(two, w); });
  for (int i = 0; i < 2; ++i) {
    graph.replay();
    CHECK(equal(y.to(Device()), cat({expected, expected}, 0)));
    CHECK(equal(conv2d(two, w).to(Device()), cat({expected, expected}, 0)));
  }
}
