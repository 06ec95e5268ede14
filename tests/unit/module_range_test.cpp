// SPDX-License-Identifier: Apache-2.0
// What modules are called in traces.
#include <doctest/doctest.h>

#include <loom/accelerators/profiler.h>
#include <loom/autograd/ops.h>
#include <loom/nn/nn.h>
#include <loom/tensor/create.h>

#include "../trace_file.h"
#include "temporary_folder.h"

using namespace loom;
using loom::testing::TraceEvent;
using loom::testing::TraceFile;

namespace module_range_test {

struct Block {
  nn::Linear up{4, 8};
  nn::Sequential<nn::BatchNorm1d, nn::ReLU, nn::Linear> rest{nn::BatchNorm1d(8), nn::ReLU(), nn::Linear(8, 4)};
  Tensor operator()(const Tensor& x) const {
    const nn::ModuleRange range(*this);
    return rest(up(x));
  }
  LOOM_MEMBERS(up, rest)
};

struct Net {
  std::vector<Block> blocks{2};
  nn::LayerNorm norm{Dims{4}};
  Tensor operator()(const Tensor& x) const {
    const nn::ModuleRange range(*this);
    return norm(blocks[1](blocks[0](x)));
  }
  LOOM_MEMBERS(blocks, norm)
};

}  // namespace module_range_test

namespace {

std::vector<std::string> modules_of(Profiler& profiler) {
  const TemporaryFolder folder;
  profiler.export_chrome_trace(folder / "trace.json");
  const TraceFile trace(folder / "trace.json");
  std::vector<TraceEvent> found;
  for (const TraceEvent& e : trace.events())
    if (e.phase == "X" && e.category == "module") found.push_back(e);
  std::ranges::stable_sort(found, [](const TraceEvent& a, const TraceEvent& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
  });
  std::vector<std::string> names;
  names.reserve(found.size());
  for (const TraceEvent& e : found) names.push_back(e.name);
  return names;
}

}  // namespace

TEST_CASE("modules in a trace are called by their paths and types") {
  const module_range_test::Net net;
  const Tensor x = ones({3, 4});
  Profiler profiler;
  {
    const nn::ModuleNames names(net);
    const Tensor y = net(x);
  }
  CHECK(modules_of(profiler) ==
        std::vector<std::string>{"module_range_test::Net", "blocks.0 (module_range_test::Block)",
                                 "blocks.0.up (Linear)", "blocks.0.rest.0 (BatchNorm1d)", "blocks.0.rest.1 (ReLU)",
                                 "blocks.0.rest.2 (Linear)", "blocks.1 (module_range_test::Block)",
                                 "blocks.1.up (Linear)", "blocks.1.rest.0 (BatchNorm1d)", "blocks.1.rest.1 (ReLU)",
                                 "blocks.1.rest.2 (Linear)", "norm (LayerNorm)"});
}

TEST_CASE("modules whose tree nobody has named are called by their types") {
  const nn::Linear layer(4, 2);
  const nn::Conv2d conv(1, 1, 1);
  Profiler profiler;
  const Tensor y = layer(ones({3, 4})), z = conv(ones({1, 1, 2, 2}));
  CHECK(modules_of(profiler) == std::vector<std::string>{"Linear", "Conv2d"});
}

TEST_CASE("a name scope ends with its block") {
  const nn::Sequential<nn::Linear> net{nn::Linear(4, 4)};
  const Tensor x = ones({3, 4});
  Profiler profiler;
  { const nn::ModuleNames names(net); }
  const Tensor y = net(x);
  CHECK(modules_of(profiler) == std::vector<std::string>{"Linear"});
}
