// Initial values of parameters, as torch.nn.init: in place, without gradient, from the rank's generator (the same
// numbers on every rank). Each returns its argument.
#pragma once

#include <loom/autograd/parameter.h>
#include <loom/tensor/create.h>

namespace loom::nn {

// A layer's new parameter, its values still undefined; dtype and device are those of the layer's options.
template <class Options>
Parameter uninitialized(const Dims& shape, const Options& options) {
  TensorOptions placed;
  placed.dtype = options.dtype;
  placed.device = options.device;
  return Parameter(empty(shape, placed));
}

}  // namespace loom::nn

namespace loom::nn::init {

enum class Fan : uint8_t { in, out };  // which side's variance kaiming keeps: activations (in) or gradients (out)
enum class Nonlinearity : uint8_t { linear, conv1d, conv2d, conv_transpose2d, sigmoid, tanh, relu, leaky_relu, selu };

// The recommended gain of a nonlinearity; slope: of leaky_relu (0.01 when not given).
double calculate_gain(Nonlinearity nonlinearity, std::optional<double> slope = {});

// Inputs and outputs of one unit: extents 1 and 0 times the receptive field.
struct Fans {
  int64_t in, out;
};
Fans fans(const Tensor& x);

Tensor uniform_(const Tensor& x, double a = 0, double b = 1);
Tensor normal_(const Tensor& x, double mean = 0, double std = 1);
// normal(mean, std), cut off outside [a, b].
Tensor trunc_normal_(const Tensor& x, double mean = 0, double std = 1, double a = -2, double b = 2);
Tensor constant_(const Tensor& x, double value);
Tensor ones_(const Tensor& x);
Tensor zeros_(const Tensor& x);
Tensor eye_(const Tensor& x);  // 2-d
// The identity as a convolution: input channel i of each group goes to output channel i. Rank 3, 4 or 5.
Tensor dirac_(const Tensor& x, int64_t groups = 1);
// Glorot, Bengio 2010: variance 2 / (in + out) times gain^2.
Tensor xavier_uniform_(const Tensor& x, double gain = 1);
Tensor xavier_normal_(const Tensor& x, double gain = 1);
// He et al. 2015: variance gain(nonlinearity, a)^2 / fan.
Tensor kaiming_uniform_(const Tensor& x, double a = 0, Fan mode = Fan::in,
                        Nonlinearity nonlinearity = Nonlinearity::leaky_relu);
Tensor kaiming_normal_(const Tensor& x, double a = 0, Fan mode = Fan::in,
                       Nonlinearity nonlinearity = Nonlinearity::leaky_relu);
// A (semi-)orthogonal matrix of x's first extent by the rest (Saxe et al. 2013), times gain.
Tensor orthogonal_(const Tensor& x, double gain = 1);
// 2-d; normal(0, std) with a fraction `sparsity` of each column zero (Martens 2010).
Tensor sparse_(const Tensor& x, double sparsity, double std = 0.01);

}  // namespace loom::nn::init
