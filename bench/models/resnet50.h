// ResNet-50 (He et al. 2016) for 224 x 224 images, the stride of a block in its 3 x 3 convolution as in torchvision;
// peers/models/resnet50.py is the twin.   width=64 side=224 classes=1000
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

struct Bottleneck {
  static constexpr int64_t expansion = 4;
  loom::nn::Conv2d conv1, conv2, conv3;
  loom::nn::BatchNorm2d bn1, bn2, bn3;
  std::optional<loom::nn::Conv2d> projection;  // where the shape changes
  std::optional<loom::nn::BatchNorm2d> projection_bn;

  Bottleneck(int64_t in, int64_t inner, int64_t stride)
      : conv1(in, inner, 1, {.bias = false}),
        conv2(inner, inner, 3, {.stride = stride, .padding = 1, .bias = false}),
        conv3(inner, expansion * inner, 1, {.bias = false}),
        bn1(inner),
        bn2(inner),
        bn3(expansion * inner) {
    if (stride == 1 && in == expansion * inner) return;
    projection.emplace(in, expansion * inner, 1, loom::nn::Conv2dOptions{.stride = stride, .bias = false});
    projection_bn.emplace(expansion * inner);
  }
  loom::Tensor operator()(const loom::Tensor& x) const {
    loom::Tensor y = loom::relu(bn1(conv1(x)));
    y = bn3(conv3(loom::relu(bn2(conv2(y)))));
    return loom::relu(y + (projection ? (*projection_bn)((*projection)(x)) : x));
  }
  LOOM_MEMBERS(conv1, conv2, conv3, bn1, bn2, bn3, projection, projection_bn)
};

struct ResNet50 {
  int64_t side, classes;
  loom::nn::Conv2d conv;
  loom::nn::BatchNorm2d bn;
  std::vector<Bottleneck> blocks;
  loom::nn::Linear fc;
  using Optimizer = loom::optim::SGD;
  static constexpr loom::optim::SgdOptions settings{.lr = 1e-3, .momentum = 0.9};

  explicit ResNet50(const Options& options)
      : side(options.number("side", 224)),
        classes(options.number("classes", 1000)),
        conv(3, options.number("width", 64), 7, {.stride = 2, .padding = 3, .bias = false}),
        bn(options.number("width", 64)),
        fc(8 * Bottleneck::expansion * options.number("width", 64), classes) {
    constexpr int64_t depths[] = {3, 4, 6, 3};
    int64_t in = options.number("width", 64), inner = in;
    for (size_t stage = 0; stage < 4; ++stage, inner *= 2)
      for (int64_t block = 0; block < depths[stage]; ++block, in = Bottleneck::expansion * inner)
        blocks.emplace_back(in, inner, stage > 0 && block == 0 ? 2 : 1);
  }
  loom::Tensor operator()(loom::Tensor x) const {
    x = loom::max_pool2d(loom::relu(bn(conv(x))), 3, {.stride = 2, .padding = 1});
    for (const Bottleneck& block : blocks) x = block(x);
    return fc(loom::flatten(loom::adaptive_avg_pool2d(x, 1), 1));
  }
  LOOM_MEMBERS(conv, bn, blocks, fc)

  Samples samples(int64_t count) const {
    return {loom::randn({count, 3, side, side}), loom::randint(0, classes, {count})};
  }
  Work work() const {
    int64_t at = side / 2;
    Work work;
    work.first = static_cast<double>(at * at * conv.weight.numel());
    work.multiply_adds = work.first + static_cast<double>(fc.weight.numel());
    at /= 2;
    for (const Bottleneck& block : blocks) {
      const int64_t out = at / block.conv2.options.stride.height;
      work.multiply_adds += static_cast<double>(at * at * block.conv1.weight.numel());
      const int64_t weights = block.conv2.weight.numel() + block.conv3.weight.numel() +
                              (block.projection ? block.projection->weight.numel() : 0);
      work.multiply_adds += static_cast<double>(out * out * weights);
      at = out;
    }
    return work;
  }
};

}  // namespace bench
