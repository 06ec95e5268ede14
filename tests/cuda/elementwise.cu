// The elementwise table as device code: every row's scalar text must compile for CUDA as it does for the CPU.
#include <loom/accelerators/elementwise.h>
#include <loom/accelerators/philox.h>

namespace loom {

template <Unary op, class T, class Y>
__global__ void unary_row(Y* y, const T* x, T p, T q, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) y[i] = elementwise::UnaryFunction<op>{}(x[i], p, q);
}

template <Binary op, class T, class Y>
__global__ void binary_row(Y* y, const T* a, const T* b, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) y[i] = elementwise::BinaryFunction<op>{}(a[i], b[i]);
}

#define UNARY(name, ...)                                                                    \
  template __global__ void unary_row<Unary::name>(float*, const float*, float, float, int); \
  template __global__ void unary_row<Unary::name>(double*, const double*, double, double, int);
#define UNARY_P(name, ...) UNARY(name)
#define STEP(name, ...) UNARY(name)
#define PREDICATE(name, ...) template __global__ void unary_row<Unary::name>(bool*, const float*, float, float, int);
#define BINARY(name, ...)                                                                     \
  template __global__ void binary_row<Binary::name>(float*, const float*, const float*, int); \
  template __global__ void binary_row<Binary::name>(double*, const double*, const double*, int);
#define COMPARE(name, ...) template __global__ void binary_row<Binary::name>(bool*, const float*, const float*, int);
#define BITWISE(name, ...) template __global__ void binary_row<Binary::name>(int*, const int*, const int*, int);
#include <loom/accelerators/elementwise.def>

// The 16-bit types and the random numbers are shared with the device as well.
__global__ void half_types(float* y, Half h, BFloat16 b) {
  y[0] = static_cast<float>(Half(static_cast<float>(h) * 2.0f)) + static_cast<float>(BFloat16(static_cast<float>(b)));
}
__global__ void philox_block(uint32_t* y, Philox state) {
  for (int i = 0; i < 4; ++i) y[i] = state.block(threadIdx.x)[i];
}

}  // namespace loom
