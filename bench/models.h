// The networks that are measured; peers/models.py has their twins.
#pragma once

#include <loom/loom.h>
#include <loom/nn/conv.h>
#include <loom/nn/linear.h>

namespace bench {

struct Mlp {
  loom::nn::Linear fc1{784, 128}, fc2{128, 10};

  loom::Tensor operator()(const loom::Tensor& images) const { return fc2(loom::relu(fc1(loom::flatten(images, 1)))); }
  LOOM_MEMBERS(fc1, fc2)
};

struct Cnn {
  loom::nn::Conv2d conv1{1, 32, 3, {.padding = 1}}, conv2{32, 64, 3, {.padding = 1}};
  loom::nn::Linear fc1{3136, 128}, fc2{128, 10};

  loom::Tensor operator()(loom::Tensor x) const {
    x = loom::max_pool2d(loom::relu(conv1(x)), 2);
    x = loom::max_pool2d(loom::relu(conv2(x)), 2);
    return fc2(loom::relu(fc1(loom::flatten(x, 1))));
  }
  LOOM_MEMBERS(conv1, conv2, fc1, fc2)
};

}  // namespace bench
