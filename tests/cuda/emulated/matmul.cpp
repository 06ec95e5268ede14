// SPDX-License-Identifier: Apache-2.0
// In place of cuBLASLt: plain loops, on arguments as strict as the library's.
#include <loom/accelerators/cuda/matmul.h>

#include <vector>

#include <queues.h>

#include <loom/accelerators/elementwise.h>
#include <loom/accelerators/float8.h>

namespace loom::cuda {

namespace {

void check_leading(const MatrixLayout& layout, int64_t rows, int64_t columns) {
  check(layout.leading >= (layout.transposed ? rows : columns), "matmul: leading dimension ", layout.leading);
}

template <class S, class Number>
std::vector<double> widened(const void* data, const MatrixLayout& layout, int64_t rows, int64_t columns,
                            const Number& number) {
  const auto* const x = static_cast<const S*>(data);
  std::vector<double> out(static_cast<size_t>(rows * columns));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j)
      out[static_cast<size_t>(i * columns + j)] =
          number(layout.transposed ? x[j * layout.leading + i] : x[i * layout.leading + j]);
  return out;
}
template <class S>
std::vector<double> widened(const void* data, const MatrixLayout& layout, int64_t rows, int64_t columns) {
  return widened<S>(data, layout, rows, columns,
                    [](S x) { return static_cast<double>(static_cast<compute_type<S>>(x)); });
}
std::vector<double> widened(const void* data, const MatrixLayout& layout, int64_t rows, int64_t columns, Fp8 format,
                            const float* inverse) {
  return widened<uint8_t>(data, layout, rows, columns, [&](uint8_t code) {
    return static_cast<double>(float_of(format, code)) * static_cast<double>(*inverse);
  });
}

template <class T>
T gelu(T x) {
  return T(0.5) * x * (T(1) + std::tanh(T(0.79788456080286535588) * (x + T(0.044715) * x * x * x)));
}

// Products are summed in T; a and b are what T holds.
template <class T, class C>
void multiply(const Matmul& p, const std::vector<double>& a, const std::vector<double>& b, C* c) {
  const auto* const bias = static_cast<const C*>(p.bias);
  auto* const aux = static_cast<C*>(p.aux);
  std::vector<T> row(static_cast<size_t>(p.n)), sums(static_cast<size_t>(p.n), T(0));
  for (int64_t i = 0; i < p.m; ++i) {
    std::fill(row.begin(), row.end(), T(0));
    T sum = 0;
    for (int64_t l = 0; l < p.k; ++l) {
      const T factor = static_cast<T>(a[static_cast<size_t>(i * p.k + l)]);
      sum += factor;
      const double* const from = b.data() + l * p.n;
      for (int64_t j = 0; j < p.n; ++j) row[static_cast<size_t>(j)] += factor * static_cast<T>(from[j]);
    }
    C* const to = c + i * p.c_layout.leading;
    for (int64_t j = 0; j < p.n; ++j) {
      T value = static_cast<T>(p.alpha) * row[static_cast<size_t>(j)];
      if (p.beta != 0) value += static_cast<T>(p.beta) * static_cast<T>(to[j]);
      if (bias != nullptr) value += static_cast<T>(bias[j]);
      if (p.epilogue == Epilogue::gelu) {
        aux[i * p.n + j] = static_cast<C>(value);
        value = gelu(value);
      } else if (p.epilogue == Epilogue::gelu_grad) {
        value *= elementwise::gelu_tanh_slope(static_cast<T>(aux[i * p.n + j]));
        sums[static_cast<size_t>(j)] += value;
      }
      to[j] = static_cast<C>(value);
    }
    if (p.epilogue == Epilogue::row_sums) static_cast<C*>(p.sums)[i] = static_cast<C>(sum);
  }
  if (p.epilogue != Epilogue::gelu_grad || p.sums == nullptr) return;
  for (int64_t j = 0; j < p.n; ++j) static_cast<C*>(p.sums)[j] = static_cast<C>(sums[static_cast<size_t>(j)]);
}

template <class S, class C>
void all(const Matmul& p) {
  for (int64_t i = 0; i < p.batches; ++i)
    multiply<compute_type<S>>(p, widened<S>(static_cast<const S*>(p.a) + i * p.a_layout.step, p.a_layout, p.m, p.k),
                              widened<S>(static_cast<const S*>(p.b) + i * p.b_layout.step, p.b_layout, p.k, p.n),
                              static_cast<C*>(p.c) + i * p.c_layout.step);
}

bool lies_on_16(const void* address) { return reinterpret_cast<uintptr_t>(address) % 16 == 0; }

// As the library: K is the dense dimension of both, extents and addresses are multiples of 16, one operand has the
// finer format, and a bias is of 16 bits.
void check_f8(const Matmul& p) {
  const Fp8Operands& f8 = *p.f8;
  check(!p.a_layout.transposed && p.b_layout.transposed && p.batches == 1, "matmul: layout of operands of 8 bits");
  check(p.m % 16 == 0 && p.n % 16 == 0 && p.k % 16 == 0, "matmul: extents of operands of 8 bits");
  check(lies_on_16(p.a) && lies_on_16(p.b) && lies_on_16(p.c), "matmul: addresses of operands of 8 bits");
  check(f8.a == Fp8::e4m3 || f8.b == Fp8::e4m3, "matmul: two operands of E5M2");
  check(p.bias == nullptr || p.out == DType::bf16, "matmul: bias of operands of 8 bits");
}

template <class C>
void all_f8(const Matmul& p) {
  const Fp8Operands& f8 = *p.f8;
  multiply<float>(p, widened(p.a, p.a_layout, p.m, p.k, f8.a, f8.a_inverse),
                  widened(p.b, p.b_layout, p.k, p.n, f8.b, f8.b_inverse), static_cast<C*>(p.c));
}

}  // namespace

std::string matmul_library() { return "products by the host"; }

bool matmul(Gpu& gpu, const Matmul& p) {
  check(p.m > 0 && p.n > 0 && p.k > 0 && p.batches > 0 && p.batches <= 65535 && !p.c_layout.transposed,
        "matmul: arguments");
  check_leading(p.a_layout, p.m, p.k);
  check_leading(p.b_layout, p.k, p.n);
  if (p.bias != nullptr && p.n % 3 == 0) return false;  // some products have no kernel with a bias
  const bool has_aux = p.epilogue == Epilogue::gelu || p.epilogue == Epilogue::gelu_grad;
  if (has_aux && (p.n % 8 != 0 || !lies_on_16(p.aux))) return false;
  check(p.epilogue == Epilogue::none || (p.batches == 1 && p.alpha == 1), "matmul: arguments of an epilogue");
  if (p.f8) check_f8(p);
  emulated::enqueue(gpu.stream(), [p] {
    if (p.f8) return p.out == DType::bf16 ? all_f8<BFloat16>(p) : all_f8<float>(p);
    with_floating("matmul", p.in, [&]<class S> {
      if (p.out == p.in) return all<S, S>(p);
      if constexpr (sizeof(S) == 2) all<S, float>(p);
    });
  });
  return true;
}

}  // namespace loom::cuda
