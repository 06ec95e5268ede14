// SPDX-License-Identifier: Apache-2.0
// Sizes at which kernels use blocks, whole vectors with a rest, and threads.
#include "case.h"

namespace loom::sweep {

namespace {

void add_large_products(Cases& c) {
  c.add("matmul", "large", {real({67, 131}), real({131, 70})}, [](In x) { return matmul(x[0], x[1]); })
      .sum_of(131)
      .large();
  c.add("matmul", "several blocks", {real({300, 700}), real({700, 530})}, [](In x) { return matmul(x[0], x[1]); })
      .sum_of(700)
      .large()
      .not_expanded("takes long");
  c.add("matmul", "large batch", {real({5, 33, 40}), real({40, 37})}, [](In x) { return matmul(x[0], x[1]); })
      .sum_of(165)
      .large();
  c.add("linear", "large", {real({65, 100}), real({33, 100}), real({33})},
        [](In x) { return linear(x[0], x[1], x[2]); })
      .sum_of(100)
      .large();
  const auto add_conv = [&](const char* what, const Dims& x, const Dims& w, const Conv2dOptions& options) {
    c.add("conv2d", what, {real(x), real(w), real({w[0]})}, [=](In in) { return conv2d(in[0], in[1], in[2], options); })
        .sum_of(static_cast<double>(x[0] * x[2] * x[3]))
        .roundings(8)
        .large();
  };
  add_conv("large", {4, 9, 19, 21}, {17, 9, 3, 3}, {.padding = 1});
  add_conv("large, stride", {3, 8, 23, 22}, {16, 8, 5, 5}, {.stride = 2, .padding = 2});
  add_conv("large, 1 x 1", {3, 24, 13, 15}, {20, 24, 1, 1}, {});
  add_conv("large, depthwise", {3, 19, 17, 18}, {19, 1, 3, 3}, {.padding = 1, .groups = 19});
  add_conv("large, transformed tiles", {3, 37, 17, 15}, {35, 37, 3, 3}, {.padding = 1});
  c.add("conv_transpose2d", "large", {real({2, 9, 12, 11}), real({9, 7, 4, 4})},
        [](In x) { return conv_transpose2d(x[0], x[1], {}, {.stride = 2, .padding = 1}); })
      .sum_of(300)
      .roundings(8)
      .large();
}

void add_large_attention(Cases& c) {
  for (const bool causal : {false, true})
    c.add("scaled_dot_product_attention", causal ? "large, causal" : "large",
          {real({2, 3, 65, 40}), real({2, 3, 131, 40}), real({2, 3, 131, 23})},
          [=](In x) { return scaled_dot_product_attention(x[0], x[1], x[2], {.is_causal = causal}); })
        .sum_of(131)
        .roundings(8)
        .large();
  c.add("scaled_dot_product_attention", "large, mask",
        {real({2, 65, 24}), real({2, 131, 24}), real({2, 131, 33}), mask({65, 131})},
        [](In x) { return scaled_dot_product_attention(x[0], x[1], x[2], {.mask = x[3]}); })
      .sum_of(131)
      .roundings(8)
      .large();
}

void add_large_rows(Cases& c) {
  const Dims wide{37, 1003}, tall{1003, 37};
  for (const Dims& shape : {wide, tall}) {
    const std::string what = "large, " + to_string(shape);
    const auto n = static_cast<double>(shape[1]), all = static_cast<double>(shape.numel());
    for (const int dim : {0, 1}) {
      const std::string name = what + " along " + std::to_string(dim);
      c.add("sum", name, {real(shape)}, [=](In x) { return sum(x[0], {dim}); }).sum_of(1003).large();
      c.add("logsumexp", name, {real(shape)}, [=](In x) { return logsumexp(x[0], {dim}); }).sum_of(1003).large();
      c.add("cumsum", name, {real(shape)}, [=](In x) { return cumsum(x[0], dim); }).sum_of(1003).large();
      c.add("softmax", name, {real(shape)}, [=](In x) { return softmax(x[0], dim); }).sum_of(1003).roundings(8).large();
      c.add("log_softmax", name, {real(shape)}, [=](In x) { return log_softmax(x[0], dim); })
          .sum_of(1003)
          .roundings(8)
          .large();
      c.add("sort", name, {real(shape)}, [=](In x) { return sort(x[0], dim).first; }).large().not_expanded("ties");
    }
    c.add("layer_norm", what, {real(shape), real({shape[1]}), real({shape[1]})},
          [](In x) { return layer_norm(x[0], {x[0].size(1)}, x[1], x[2]); })
        .sum_of(all / n + n)
        .roundings(8)
        .large();
    c.add("rms_norm", what, {real(shape), real({shape[1]})},
          [](In x) { return rms_norm(x[0], {x[0].size(1)}, x[1], 1e-5); })
        .sum_of(all / n + n)
        .roundings(8)
        .large();
    c.add("batch_norm", what, {real(shape), real({shape[1]}), real({shape[1]})},
          [](In x) { return batch_norm(x[0], {}, {}, x[1], x[2], true); })
        .sum_of(1003)
        .roundings(8)
        .large();
    c.add("cross_entropy", what, {real(shape), integers({shape[0]}, 0, shape[1])},
          [](In x) { return cross_entropy(x[0], x[1], {.label_smoothing = 0.1}); })
        .sum_of(1003)
        .roundings(8)
        .large();
  }
  c.add("gelu", "large", {real({70000})}, [](In x) { return gelu(x[0]); }).large();
  c.add("mul", "large, broadcast", {real({300, 1, 37}), real({11, 1})}, [](In x) { return x[0] * x[1]; })
      .sum_of(11100)
      .large();
  c.add("embedding", "large", {integers({900}, 0, 40), real({40, 33})}, [](In x) { return embedding(x[0], x[1]); })
      .sum_of(40)
      .large();
  c.add("max_pool2d", "large", {real({3, 5, 30, 31})}, [](In x) { return max_pool2d(x[0], 2); })
      .large()
      .not_expanded("ties");
  c.add("avg_pool2d", "large", {real({3, 5, 30, 31})},
        [](In x) { return avg_pool2d(x[0], 3, {.stride = 2, .padding = 1}); })
      .sum_of(9)
      .large();
  c.add("permute", "large", {real({20, 30, 40})}, [](In x) { return clone(permute(x[0], {2, 0, 1})); }).large();
}

}  // namespace

void add_large_cases(Cases& cases) {
  add_large_products(cases);
  add_large_attention(cases);
  add_large_rows(cases);
}

}  // namespace loom::sweep
