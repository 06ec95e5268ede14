// Matrix products, convolutions, attention.
#include <loom/loom.h>
#include <loom/nn/conv.h>

#include "operation.h"

namespace bench {

using namespace loom;

// gemm nn|nt|tn DTYPE M N K: [M, K] x [K, N]; t: that operand lies transposed, as W in x W^T (forward) and g in g^T x
// (the weight's gradient).
Operation gemm(const Case& given) {
  const std::string& form = given.word(1);
  const DType dtype = given.dtype(2);
  const int64_t m = given.number(3), n = given.number(4), k = given.number(5);
  const auto operand = [&](bool transposed, int64_t rows, int64_t columns) {
    return transposed ? randn({columns, rows}).to(dtype).transpose(0, 1) : randn({rows, columns}).to(dtype);
  };
  return {.unit = "GFLOP/s",
          .call = [a = operand(form[0] == 't', m, k), b = operand(form[1] == 't', k, n)] { keep(matmul(a, b)); },
          .cost = {.flops = 2 * count(m * n * k), .bf16 = dtype == DType::bf16}};
}

// conv forward|input|weight DTYPE N C H O KERNEL STRIDE: the output, or a gradient of it; padding keeps the size.
Operation conv(const Case& given) {
  const std::string& pass = given.word(1);
  const DType dtype = given.dtype(2);
  const int64_t n = given.number(3), c = given.number(4), h = given.number(5), o = given.number(6);
  const int64_t kernel = given.exact(7), stride = given.exact(8);
  const Tensor x = randn({n, c, h, h}).to(dtype), w = randn({o, c, kernel, kernel}).to(dtype);
  const auto forward = [stride, kernel](const Tensor& input, const Tensor& weight) {
    return conv2d(input, weight, {}, {.stride = stride, .padding = kernel / 2});
  };
  const int64_t out = (h + 2 * (kernel / 2) - kernel) / stride + 1;
  Operation operation{
      .unit = "GFLOP/s",
      .call = {},
      .cost = {.flops = 2 * count(n * out * out * o * c * kernel * kernel), .bf16 = dtype == DType::bf16}};
  if (pass == "forward") {
    operation.call = [=] { keep(forward(x, w)); };
    return operation;
  }
  const Tensor wanted = given.is(1, "input", "weight") ? x : w;
  Tensor(wanted).requires_grad_();
  const Tensor y = forward(x, w), seed = randn(y.shape()).to(dtype);
  operation.call = [=] { keep(grad(y, wanted, seed, {.retain_graph = true})); };
  return operation;
}

// attention forward|backward N HEADS T D: causal; forward as in training, with what backward needs.
Operation attention(const Case& given) {
  const int64_t n = given.number(2), heads = given.number(3), length = given.number(4), width = given.number(5);
  const bool forward = given.is(1, "forward", "backward"), low = default_dtype() == DType::bf16;
  std::vector<Tensor> qkv;
  for (int i = 0; i < 3; ++i) qkv.push_back(randn({n, heads, length, width}).requires_grad_());
  const auto run = [qkv] { return scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], {.is_causal = true}); };
  const double products = count(n * heads * length * (length + 1) * width) * 2;  // two, each on half of T x T
  if (forward) return {.unit = "ms", .call = [run] { keep(run()); }, .cost = {.flops = products, .bf16 = low}};
  const Tensor y = run(), seed = randn(y.shape());
  return {.unit = "ms",
          .call = [qkv, y, seed] { keep(grad(std::span(&y, 1), qkv, std::span(&seed, 1), {.retain_graph = true})); },
          .cost = {.flops = 2 * products, .bf16 = low}};
}

}  // namespace bench
