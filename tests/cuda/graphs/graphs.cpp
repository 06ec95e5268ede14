// SPDX-License-Identifier: Apache-2.0
// Makes a plan for every cuDNN graph of the list below, for a device that is described and need not be there. It shows
// that the library knows the pattern, has a kernel that the rules allow, and can compile it; not what it computes.
//
// usage: graphs DEVICE.json [conv|attention]
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>

#include <loom/accelerators/cuda/attention_graph.h>
#include <loom/accelerators/cuda/conv_graph.h>
#include <loom/accelerators/cuda/dnn_plan.h>

using namespace loom;
using namespace loom::cuda;

namespace {

struct Checks {
  Descriptor device;
  int made = 0, wrong = 0;

  void check(const std::string& name, const Graph& graph, const DnnRules& rules = {}) {
    const auto start = std::chrono::steady_clock::now();
    std::string outcome;
    bool ok = false;
    try {
      const auto plan = make_plan(graph, {.handle = nullptr, .described = &device}, rules);
      ok = plan != nullptr;
      outcome = plan == nullptr ? "none" : str(plan->workspace, " bytes of workspace");
    } catch (const Error& error) {
      outcome = error.what();
    }
    const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - start;
    std::printf("%s %s: %s, %.0f ms\n", ok ? "PASS" : "FAIL", name.c_str(), outcome.c_str(), taken.count());
    std::fflush(stdout);
    ++made;
    wrong += ok ? 0 : 1;
  }
};

struct Convolution {
  const char* name;
  Dims x, w;
  ConvGeometry g;
};

void check_convolutions(Checks& checks) {
  const Convolution list[] = {
      {"ResNet-50 stem", {64, 3, 224, 224}, {64, 3, 7, 7}, {{2, 2}, {3, 3}}},
      {"ResNet-50 3 x 3", {64, 64, 56, 56}, {64, 64, 3, 3}, {{1, 1}, {1, 1}}},
      {"ResNet-50 1 x 1", {64, 256, 56, 56}, {64, 256, 1, 1}, {}},
      {"ResNet-50 1 x 1, stride", {64, 256, 56, 56}, {512, 256, 1, 1}, {{2, 2}}},
      {"ResNet-50 3 x 3, stride", {64, 128, 56, 56}, {128, 128, 3, 3}, {{2, 2}, {1, 1}}},
      {"ResNet-50 last", {64, 512, 7, 7}, {512, 512, 3, 3}, {{1, 1}, {1, 1}}},
      {"classifier, first", {64, 1, 28, 28}, {32, 1, 3, 3}, {{1, 1}, {1, 1}}},
      {"classifier, second", {64, 32, 14, 14}, {64, 32, 3, 3}, {{1, 1}, {1, 1}}},
      {"groups", {32, 128, 28, 28}, {128, 4, 3, 3}, {{1, 1}, {1, 1}, {1, 1}, 32}},
      {"depthwise", {32, 96, 28, 28}, {96, 1, 3, 3}, {{1, 1}, {1, 1}, {1, 1}, 96}},
      {"dilation", {8, 32, 40, 40}, {16, 32, 3, 3}, {{1, 1}, {2, 2}, {2, 2}}},
      {"uneven", {3, 5, 17, 19}, {7, 5, 3, 2}, {{2, 3}, {1, 0}}},
      {"one row", {16, 24, 1, 100}, {48, 24, 1, 5}, {{1, 2}, {0, 2}}},
      {"tiny", {1, 1, 4, 4}, {1, 1, 3, 3}, {}},
  };
  for (const Convolution& c : list)
    for (const DType t : {f64, f32, f16, bf16})
      for (const bool channels_last : {false, true}) {
        const auto out = [&](int d) {
          const auto s = static_cast<size_t>(d);
          return (c.x[2 + d] + 2 * c.g.padding[s] - c.g.dilation[s] * (c.w[2 + d] - 1) - 1) / c.g.stride[s] + 1;
        };
        const Dims y{c.x[0], c.w[0], out(0), out(1)};
        const auto check = [&](const char* what, GraphOp op, const Dims& result, const Dims& a, const Dims& b) {
          checks.check(str(c.name, ", ", what, ", ", t, channels_last ? ", channels last" : ""),
                       conv_graph({op, t, channels_last, result, a, b, c.g}));
        };
        check("forward", GraphOp::conv, y, c.x, c.w);
        check("gradient of x", GraphOp::conv_grad_input, c.x, y, c.w);
        check("gradient of w", GraphOp::conv_grad_weight, c.w, y, c.x);
        if (t == f32)
          checks.check(str(c.name, ", forward, tf32", channels_last ? ", channels last" : ""),
                       conv_graph({GraphOp::conv, t, channels_last, y, c.x, c.w, c.g}), {.tf32 = true});
      }
}

// Strides of [batch, heads, length, width] as projections lie: [batch, length, heads, width].
Dims projected(int64_t heads, int64_t length, int64_t width, int64_t parts) {
  return {parts * heads * length * width, width, parts * heads * width, 1};
}

void check_attention(Checks& checks) {
  struct Sizes {
    int64_t batch, heads, queries, keys, width, columns;
  };
  for (const Sizes s : {Sizes{4, 12, 1024, 1024, 64, 64},
                        {2, 16, 2048, 2048, 128, 128},
                        {2, 3, 77, 77, 64, 64},
                        {1, 2, 100, 333, 40, 40},
                        {1, 4, 1, 77, 64, 64},
                        {2, 2, 333, 100, 64, 64},
                        {1, 1, 16, 16, 8, 8},
                        {1, 2, 128, 128, 64, 128}})
    for (const DType t : {f16, bf16})
      for (const bool causal : {false, true})
        for (const int64_t parts : {1, 3}) {
          AttentionCall c{t, s.batch, s.heads, s.queries, s.keys, s.width, s.columns};
          c.q = c.dq = projected(s.heads, s.queries, s.width, parts);
          c.k = c.dk = projected(s.heads, s.keys, s.width, parts);
          c.v = c.dv = projected(s.heads, s.keys, s.columns, parts);
          c.y = c.dy = row_major_strides({s.batch, s.heads, s.queries, s.columns});
          c.scale = 0.125f;
          c.causal = causal;
          const std::string name =
              str("attention [", s.batch, ", ", s.heads, ", ", s.queries, " x ", s.keys, ", ", s.width, ", ", s.columns,
                  "], ", t, causal ? ", causal" : "", parts > 1 ? ", packed" : "");
          checks.check(name, attention_graph(c));
          checks.check(name + ", gradient", attention_grad_graph(c));
          c.any_order = true;
          checks.check(name + ", gradient in any order", attention_grad_graph(c));
        }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return std::fputs("usage: graphs DEVICE.json [conv|attention]\n", stderr), 2;
  std::ifstream file(argv[1]);
  const std::string json{std::istreambuf_iterator<char>(file), {}};
  std::printf("cuDNN %zu\n", cudnnGetVersion());
  const std::string part = argc > 2 ? argv[2] : "";
  Checks checks{described_device(json)};
  if (part != "attention") check_convolutions(checks);
  if (part != "conv") check_attention(checks);
  std::printf("%d graphs, %d failed\n", checks.made, checks.wrong);
  return checks.wrong == 0 ? 0 : 1;
}
