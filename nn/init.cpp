#include <loom/nn/init.h>

#include <cmath>
#include <numbers>

#include <loom/autograd/grad_mode.h>

namespace loom::nn::init {

namespace {

// Writes row-major values computed on the host into x, whatever its dtype and device.
Tensor write(const Tensor& x, const std::vector<double>& values) { return x.copy_(from_vector(values, x.shape())); }

// Standard normal numbers in f64.
std::vector<double> normal_values(const Dims& shape) {
  return empty(shape, {DType::f64, Device()}).normal_().to_vector<double>();
}

// Inverse of the error function: Giles' approximation, then two Newton steps.
double inverse_erf(double y) {
  if (std::abs(y) >= 1) return std::copysign(std::numeric_limits<double>::infinity(), y);
  double w = -std::log1p(-y * y);
  double x = 0;
  if (w < 5) {
    w -= 2.5;
    for (const double c : {2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
                           -0.00125372503, -0.00417768164, 0.246640727, 1.50140941})
      x = x * w + c;
  } else {
    w = std::sqrt(w) - 3;
    for (const double c : {-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613,
                           0.00943887047, 1.00167406, 2.83297682})
      x = x * w + c;
  }
  x *= y;
  for (int i = 0; i < 2; ++i) {
    const double slope = 2 * std::numbers::inv_sqrtpi * std::exp(-x * x);
    if (slope > 1e-300) x -= (std::erf(x) - y) / slope;
  }
  return x;
}

double kaiming_std(const Tensor& x, double a, Fan mode, Nonlinearity nonlinearity) {
  const Fans f = fans(x);
  return calculate_gain(nonlinearity, a) / std::sqrt(static_cast<double>(mode == Fan::in ? f.in : f.out));
}

double xavier_std(const Tensor& x, double gain) {
  const Fans f = fans(x);
  return gain * std::sqrt(2.0 / static_cast<double>(f.in + f.out));
}

double dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// Makes the rows (count <= n) orthonormal: Gram-Schmidt, each row twice for precision.
void orthonormalize(std::vector<double>& rows, int64_t count, int64_t n) {
  for (int64_t i = 0; i < count; ++i) {
    double* const row = &rows[static_cast<size_t>(i * n)];
    for (int pass = 0; pass < 2; ++pass)
      for (int64_t j = 0; j < i; ++j) {
        const double* const other = &rows[static_cast<size_t>(j * n)];
        const double overlap = dot(row, other, n);
        for (int64_t k = 0; k < n; ++k) row[k] -= overlap * other[k];
      }
    const double scale = 1 / std::sqrt(dot(row, row, n));
    for (int64_t k = 0; k < n; ++k) row[k] *= scale;
  }
}

}  // namespace

double calculate_gain(Nonlinearity nonlinearity, std::optional<double> slope) {
  switch (nonlinearity) {
    case Nonlinearity::tanh:
      return 5.0 / 3;
    case Nonlinearity::relu:
      return std::numbers::sqrt2;
    case Nonlinearity::leaky_relu: {
      const double a = slope.value_or(0.01);
      return std::sqrt(2 / (1 + a * a));
    }
    case Nonlinearity::selu:
      return 0.75;
    default:
      return 1;
  }
}

Fans fans(const Tensor& x) {
  check(x.dim() >= 2, "init: fan in and fan out can not be computed for a tensor of shape ", x.shape(),
        "; at least 2 dimensions are needed");
  int64_t field = 1;
  for (int i = 2; i < x.dim(); ++i) field *= x.size(i);
  return {x.size(1) * field, x.size(0) * field};
}

Tensor uniform_(const Tensor& x, double a, double b) {
  const NoGrad no_grad;
  return x.uniform_(a, b);
}

Tensor normal_(const Tensor& x, double mean, double std) {
  const NoGrad no_grad;
  return x.normal_(mean, std);
}

Tensor constant_(const Tensor& x, double value) {
  const NoGrad no_grad;
  return x.fill_(value);
}
Tensor ones_(const Tensor& x) { return constant_(x, 1); }
Tensor zeros_(const Tensor& x) { return constant_(x, 0); }

Tensor trunc_normal_(const Tensor& x, double mean, double std, double a, double b) {
  const NoGrad no_grad;
  const auto cumulative = [&](double v) { return std::erf((v - mean) / std / std::numbers::sqrt2); };
  std::vector<double> values =
      empty(x.shape(), {DType::f64, Device()}).uniform_(cumulative(a), cumulative(b)).to_vector<double>();
  for (double& v : values) v = std::clamp(mean + std * std::numbers::sqrt2 * inverse_erf(v), a, b);
  return write(x, values);
}

Tensor eye_(const Tensor& x) {
  check(x.dim() == 2, "init::eye_: expects 2 dimensions, got ", x.shape());
  zeros_(x);
  const NoGrad no_grad;
  x.diagonal().fill_(1);
  return x;
}

Tensor dirac_(const Tensor& x, int64_t groups) {
  check(x.dim() >= 3 && x.dim() <= 5, "init::dirac_: expects 3, 4 or 5 dimensions, got ", x.shape());
  check(groups >= 1 && x.size(0) % groups == 0, "init::dirac_: extent 0 of ", x.shape(), " is not divisible by ",
        groups, " groups");
  zeros_(x);
  const NoGrad no_grad;
  const int64_t outputs = x.size(0) / groups;
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t i = 0; i < std::min(outputs, x.size(1)); ++i) {
      Tensor kernel = x[g * outputs + i][i];
      while (kernel.dim() > 0) kernel = kernel[kernel.size(0) / 2];
      kernel.fill_(1);
    }
  return x;
}

Tensor xavier_uniform_(const Tensor& x, double gain) {
  const double bound = std::sqrt(3.0) * xavier_std(x, gain);
  return uniform_(x, -bound, bound);
}
Tensor xavier_normal_(const Tensor& x, double gain) { return normal_(x, 0, xavier_std(x, gain)); }

Tensor kaiming_uniform_(const Tensor& x, double a, Fan mode, Nonlinearity nonlinearity) {
  if (x.numel() == 0) return x;
  const double bound = std::sqrt(3.0) * kaiming_std(x, a, mode, nonlinearity);
  return uniform_(x, -bound, bound);
}
Tensor kaiming_normal_(const Tensor& x, double a, Fan mode, Nonlinearity nonlinearity) {
  return x.numel() == 0 ? x : normal_(x, 0, kaiming_std(x, a, mode, nonlinearity));
}

Tensor orthogonal_(const Tensor& x, double gain) {
  check(x.dim() >= 2, "init::orthogonal_: expects at least 2 dimensions, got ", x.shape());
  if (x.numel() == 0) return x;
  const NoGrad no_grad;
  const int64_t height = x.size(0), width = x.numel() / height;
  const int64_t count = std::min(height, width), n = std::max(height, width);
  std::vector<double> rows = normal_values({count, n});
  orthonormalize(rows, count, n);
  std::vector<double> values(rows.size());
  for (int64_t i = 0; i < height; ++i)
    for (int64_t j = 0; j < width; ++j)
      values[static_cast<size_t>(i * width + j)] =
          gain * rows[static_cast<size_t>(height <= width ? i * n + j : j * n + i)];
  return write(x, values);
}

Tensor sparse_(const Tensor& x, double sparsity, double std) {
  check(x.dim() == 2, "init::sparse_: expects 2 dimensions, got ", x.shape());
  const NoGrad no_grad;
  const int64_t rows = x.size(0), columns = x.size(1);
  const auto zeros = static_cast<int64_t>(std::ceil(sparsity * static_cast<double>(rows)));
  std::vector<double> values = normal_values(x.shape());
  for (double& v : values) v *= std;
  for (int64_t column = 0; column < columns; ++column) {
    const std::vector<int64_t> order = randperm(rows, Device()).to_vector<int64_t>();
    for (int64_t i = 0; i < zeros; ++i)
      values[static_cast<size_t>(order[static_cast<size_t>(i)] * columns + column)] = 0;
  }
  return write(x, values);
}

}  // namespace loom::nn::init
