// ResNet-18 (He et al. 2016) in its form for 32 x 32 images: a 3 x 3 stem, no pooling before the blocks.
// peers/models/resnet.py is the twin.   width=64
#pragma once

#include <optional>
#include <vector>

#include <loom/loom.h>
#include <loom/nn/batch_norm.h>
#include <loom/nn/conv.h>
#include <loom/nn/linear.h>
#include <loom/nn/optim/sgd.h>

#include "../row.h"
#include "work.h"

namespace bench {

struct BasicBlock {
  loom::nn::Conv2d conv1, conv2;
  loom::nn::BatchNorm2d bn1, bn2;
  std::optional<loom::nn::Conv2d> projection;  // where the shape changes
  std::optional<loom::nn::BatchNorm2d> projection_bn;

  BasicBlock(int64_t in, int64_t out, int64_t stride)
      : conv1(in, out, 3, {.stride = stride, .padding = 1, .bias = false}),
        conv2(out, out, 3, {.padding = 1, .bias = false}),
        bn1(out),
        bn2(out) {
    if (stride == 1 && in == out) return;
    projection.emplace(in, out, 1, loom::nn::Conv2dOptions{.stride = stride, .bias = false});
    projection_bn.emplace(out);
  }
  loom::Tensor operator()(const loom::Tensor& x) const {
    const loom::Tensor y = conv2(bn1.relu(conv1(x)));
    return bn2.relu(y, projection ? (*projection_bn)((*projection)(x)) : x);
  }
  LOOM_MEMBERS(conv1, conv2, bn1, bn2, projection, projection_bn)
};

struct ResNet {
  int64_t width;
  loom::nn::Conv2d conv;
  loom::nn::BatchNorm2d bn;
  std::vector<BasicBlock> blocks;
  loom::nn::Linear fc;
  using Optimizer = loom::optim::SGD;
  static constexpr loom::optim::SgdOptions settings{.lr = 1e-3, .momentum = 0.9};

  explicit ResNet(const Options& options)
      : width(options.number("width", 64)),
        conv(3, width, 3, {.padding = 1, .bias = false}),
        bn(width),
        fc(8 * width, 10) {
    for (int64_t stage = 0, in = width; stage < 4; ++stage)
      for (int64_t block = 0, out = width << stage; block < 2; ++block, in = out)
        blocks.emplace_back(in, out, stage > 0 && block == 0 ? 2 : 1);
  }
  loom::Tensor operator()(loom::Tensor x) const {
    x = bn.relu(conv(x));
    for (const BasicBlock& block : blocks) x = block(x);
    return fc(loom::flatten(loom::adaptive_avg_pool2d(x, 1), 1));
  }
  LOOM_MEMBERS(conv, bn, blocks, fc)

  Samples samples(int64_t count) const { return {loom::randn({count, 3, 32, 32}), loom::randint(0, 10, {count})}; }
  Work work() const {
    Work work;
    work.first = static_cast<double>(32 * 32 * conv.weight.numel());
    work.multiply_adds = work.first + static_cast<double>(fc.weight.numel());
    int64_t side = 32;
    for (const BasicBlock& block : blocks) {
      side /= block.conv1.options.stride.height;
      const int64_t weights = block.conv1.weight.numel() + block.conv2.weight.numel() +
                              (block.projection ? block.projection->weight.numel() : 0);
      work.multiply_adds += static_cast<double>(side * side * weights);
    }
    return work;
  }
};

}  // namespace bench
