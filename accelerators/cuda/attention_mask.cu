#include <cmath>
#include <limits>

#include <loom/accelerators/cuda/attention_mask.h>
#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/cuda/launch.h>

namespace loom::cuda {

namespace {

constexpr int warp = 32;
constexpr float hidden = -1e30f;  // scores are lost in it, and it in no product with log2(e)

// Rows of four-dimensional arrays.
struct Rows {
  int64_t heads, rows, batch_stride, head_stride, row_stride;

  explicit Rows(const View& x)
      : heads(x.shape[1]),
        rows(x.shape[2]),
        batch_stride(x.strides[0]),
        head_stride(x.strides[1]),
        row_stride(x.strides[2]) {}
  __device__ int64_t start(int64_t row) const {
    const int64_t matrix = row / rows;
    return matrix / heads * batch_stride + matrix % heads * head_stride + row % rows * row_stride;
  }
};

__device__ float bias_of(bool seen) { return seen ? 0.0f : hidden; }
__device__ float bias_of(float added) {
  return added < hidden && added != -std::numeric_limits<float>::infinity() ? hidden : added;
}

// A warp a row.
template <class T>
__global__ void __launch_bounds__(threads_per_block)
    bias_kernel(float* bias, Rows to, const T* mask, Rows from, int64_t step, int64_t rows, int64_t columns) {
  constexpr int at_once = threads_per_block / warp;
  const int64_t stride = int64_t{gridDim.x} * at_once;
  for (int64_t row = int64_t{blockIdx.x} * at_once + threadIdx.x / warp; row < rows; row += stride) {
    float* const y = bias + to.start(row);
    const T* const x = mask + from.start(row);
    for (int64_t j = threadIdx.x % warp; j < to.row_stride; j += warp) y[j] = j < columns ? bias_of(x[j * step]) : 0.0f;
  }
}

// A thread looks at a row; few are to be written.
template <class T>
__global__ void __launch_bounds__(threads_per_block)
    mend_kernel(T* y, Rows at, int64_t step, float* lse, int64_t rows, int64_t columns, bool boolean) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t row = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; row < rows; row += stride) {
    const float sum = lse[row];
    if (boolean ? !(sum < hidden / 2) : sum - sum == 0.0f) continue;
    const float nan = std::numeric_limits<float>::quiet_NaN();
    lse[row] = boolean ? std::numeric_limits<float>::infinity() : nan;
    for (int64_t j = 0; j < columns; ++j) y[at.start(row) + j * step] = convert<T>(boolean ? 0.0f : nan);
  }
}

}  // namespace

void write_bias(Gpu& gpu, const View& bias, const View& mask) {
  const int64_t rows = bias.shape[0] * bias.shape[1] * bias.shape[2], columns = bias.shape[3];
  const auto run = [&]<class T>(const T* from) {
    launch(gpu, "attention", &bias_kernel<T>, grid_for(gpu, rows * warp), threads_per_block, 0, bias.as<float>(),
           Rows(bias), from, Rows(mask), mask.strides[3], rows, columns);
  };
  if (mask.dtype == DType::boolean)
    run(mask.as<const bool>());
  else
    run(mask.as<const float>());
}

void mend_hidden_rows(Gpu& gpu, const View& y, const View& lse, bool boolean) {
  with_floating("attention", y.dtype, [&]<class T> {
    launch(gpu, "attention", &mend_kernel<T>, grid_for(gpu, lse.numel()), threads_per_block, 0, y.as<T>(), Rows(y),
           y.strides[3], lse.as<float>(), lse.numel(), y.shape[3], boolean);
  });
}

}  // namespace loom::cuda
