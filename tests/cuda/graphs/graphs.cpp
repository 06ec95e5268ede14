// SPDX-License-Identifier: Apache-2.0
// Makes a plan for every cuDNN graph of the list below, for a device that is described and need not be there. It shows
// that the library knows the pattern, has a kernel that the rules allow, and can compile it; not what it computes.
//
// usage: graphs DEVICE.json [conv|attention|proposals]
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

  // Passes with at least so many plans of at most so many.
  void check(const std::string& name, const Graph& graph, const DnnRules& rules = {}, size_t least = 1,
             size_t most = 1) {
    const auto start = std::chrono::steady_clock::now();
    std::string outcome;
    bool ok = false;
    try {
      const auto plans = make_plans(graph, {.handle = nullptr, .described = &device}, rules, most);
      ok = plans.size() >= least;
      outcome = plans.empty() ? "none" : str(plans.size(), " plans, ", plans[0]->workspace, " bytes of workspace");
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

struct Heads {
  int64_t batch, heads, key_heads, queries, keys, width, columns;
};

AttentionCall call_of(const Heads& s, DType t, int64_t parts) {
  AttentionCall c{t, s.batch, s.heads, s.key_heads, s.queries, s.keys, s.width, s.columns};
  c.q = c.dq = projected(s.heads, s.queries, s.width, parts);
  c.k = c.dk = projected(s.key_heads, s.keys, s.width, parts);
  c.v = c.dv = projected(s.key_heads, s.keys, s.columns, parts);
  c.y = c.dy = row_major_strides({s.batch, s.heads, s.queries, s.columns});
  c.scale = 0.125f;
  return c;
}

// The forward and both forms of the gradient.
void check_attention(Checks& checks, const std::string& options, AttentionCall c) {
  const std::string name =
      str("attention [", c.batch, ", ", c.heads, " (", c.key_heads, "), ", c.queries, " x ", c.keys, ", ", c.width,
          ", ", c.columns, "], ", c.dtype, c.causal ? ", causal" : "", options);
  checks.check(name, attention_graph(c));
  checks.check(name + ", gradient", attention_grad_graph(c));
  c.any_order = true;
  checks.check(name + ", gradient in any order", attention_grad_graph(c));
}

void check_plain_attention(Checks& checks) {
  for (const Heads& s : {Heads{4, 12, 12, 1024, 1024, 64, 64},
                         {2, 16, 16, 2048, 2048, 128, 128},
                         {2, 3, 3, 77, 77, 64, 64},
                         {1, 2, 2, 100, 333, 40, 40},
                         {1, 4, 4, 1, 77, 64, 64},
                         {2, 2, 2, 333, 100, 64, 64},
                         {1, 1, 1, 16, 16, 8, 8},
                         {1, 2, 2, 128, 128, 64, 128}})
    for (const DType t : {f16, bf16})
      for (const bool causal : {false, true})
        for (const int64_t parts : {1, 3}) {
          if (parts == 3 && (s.queries != s.keys || s.queries < 77 || t == f16)) continue;
          AttentionCall c = call_of(s, t, parts);
          c.causal = causal;
          check_attention(checks, parts > 1 ? ", packed" : "", c);
        }
}

// What a mask is repeated over.
enum class Mask : uint8_t { none, all_heads, heads, batch, nothing, heads_and_queries };

// As dnn_attention.cpp lays masks out: rows on 16-byte boundaries; of one row for all queries the stride is 0.
void add_mask(AttentionCall& c, Mask mask) {
  if (mask == Mask::none) return;
  const bool each_batch = mask != Mask::all_heads && mask != Mask::batch;
  const bool each_head = mask == Mask::batch || mask == Mask::nothing;
  const int64_t row = (c.keys + 3) / 4 * 4, rows = mask == Mask::heads_and_queries ? 1 : c.queries;
  c.mask = {each_batch ? c.batch : 1, each_head ? c.heads : 1, c.queries, c.keys};
  c.mask_strides = {c.mask[1] * rows * row, rows * row, rows == 1 ? 0 : row, 1};
}

void check_optional_attention(Checks& checks) {
  const Heads small{2, 4, 4, 128, 128, 64, 64}, odd{2, 3, 3, 77, 77, 64, 64}, uneven{2, 3, 3, 100, 333, 128, 128},
      large{2, 8, 8, 1024, 1024, 128, 128};
  const Heads shared{2, 8, 2, 1024, 1024, 64, 64}, shared_wide{2, 8, 4, 128, 128, 128, 128},
      shared_odd{2, 6, 1, 77, 333, 64, 64};
  struct Case {
    Heads heads;
    DType dtype;
    Mask mask = Mask::none;
    double dropped = 0;
    bool causal = false;
  };
  std::vector<Case> list{
      {odd, f16, Mask::all_heads},
      {uneven, bf16, Mask::heads},
      {large, f16, Mask::heads},
      {large, bf16, Mask::heads_and_queries},
      {shared, f16},
      {shared, bf16, Mask::none, 0, true},
      {shared_wide, f16, Mask::none, 0, true},
      {shared_odd, bf16},
      {small, f16, Mask::none, 0.1},
      {odd, bf16, Mask::none, 0.5, true},
      {uneven, f16, Mask::none, 0.1},
      {large, bf16, Mask::none, 0.1, true},
      {small, bf16, Mask::nothing, 0.1, true},
      {shared, bf16, Mask::none, 0.1, true},
      {shared_wide, bf16, Mask::heads},
      {shared_odd, f16, Mask::heads_and_queries, 0.1},
      {shared_wide, f16, Mask::batch, 0.1, true},
  };
  for (const Mask mask : {Mask::all_heads, Mask::heads, Mask::batch, Mask::nothing, Mask::heads_and_queries})
    for (const bool causal : {false, true}) list.push_back({small, causal ? f16 : bf16, mask, 0, causal});
  const char* const names[] = {"",
                               ", a mask for all",
                               ", a mask for each of the batch",
                               ", a mask for each head",
                               ", a mask for each matrix",
                               ", a row of a mask for each of the batch"};
  for (const Case& x : list) {
    AttentionCall c = call_of(x.heads, x.dtype, 1);
    add_mask(c, x.mask);
    c.keep = 1 - x.dropped;
    c.causal = x.causal;
    check_attention(checks, str(names[static_cast<size_t>(x.mask)], x.dropped > 0 ? ", dropout" : ""), c);
  }
}

// What is timed where LOOM_AUTOTUNE=1: several ways to do the same.
void check_proposals(Checks& checks) {
  struct Shape {
    const char* name;
    Dims x, w;
    ConvGeometry g;
  };
  for (const Shape& s : {Shape{"3 x 3", {64, 64, 56, 56}, {64, 64, 3, 3}, {{1, 1}, {1, 1}}},
                         Shape{"1 x 1", {64, 64, 56, 56}, {64, 64, 1, 1}, {}}}) {
    const auto check = [&](const char* what, GraphOp op, DType t, const Dims& y, const Dims& a, const Dims& b) {
      checks.check(str("proposals for ResNet-50 ", s.name, ", ", what, ", ", t),
                   conv_graph({op, t, t == bf16, y, a, b, s.g}), {}, 2, 10);
    };
    check("forward", GraphOp::conv, f32, s.x, s.x, s.w);
    check("forward", GraphOp::conv, bf16, s.x, s.x, s.w);
    check("gradient of x", GraphOp::conv_grad_input, bf16, s.x, s.x, s.w);
    check("gradient of w", GraphOp::conv_grad_weight, bf16, s.w, s.x, s.x);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return std::fputs("usage: graphs DEVICE.json [conv|attention|proposals]\n", stderr), 2;
  std::ifstream file(argv[1]);
  const std::string json{std::istreambuf_iterator<char>(file), {}};
  std::printf("cuDNN %zu\n", dnn().version());
  const std::string part = argc > 2 ? argv[2] : "";
  Checks checks{described_device(json)};
  if (part.empty() || part == "conv") check_convolutions(checks);
  if (part.empty() || part == "attention") {
    check_plain_attention(checks);
    check_optional_attention(checks);
  }
  if (part.empty() || part == "proposals") check_proposals(checks);
  std::printf("%d graphs, %d failed\n", checks.made, checks.wrong);
  return checks.wrong == 0 ? 0 : 1;
}
