// Copies, conversions and constants. Between devices memory moves dense to dense; the host waits for what it reads.
#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/cuda/launch.h>
#include <loom/accelerators/cuda/layout.h>

namespace loom {

namespace {

using cuda::threads_per_block;
using cuda::Walk;

constexpr int tile = 32, tile_rows = 8;

// Elements as they are, of the size of T.
template <class T>
__global__ void __launch_bounds__(threads_per_block) move_kernel(Walk<2> walk) {
  cuda::for_each_item(walk.numel, [&](uint32_t i) {
    const auto at = walk.offsets(i);
    *reinterpret_cast<T*>(walk.data[0] + at[0]) = *reinterpret_cast<const T*>(walk.data[1] + at[1]);
  });
}

// C: what x's numbers are converted by.
template <class C>
__global__ void __launch_bounds__(threads_per_block) convert_kernel(Walk<2> walk, DType y_type, DType x_type) {
  cuda::for_each_item(walk.numel, [&](uint32_t i) {
    const auto at = walk.offsets(i);
    cuda::store(walk.data[0] + at[0], y_type, cuda::load<C>(walk.data[1] + at[1], x_type));
  });
}

// Dense arrays of floating numbers: as many at a time as fill 16 bytes of the wider type.
template <class Y, class X>
__global__ void __launch_bounds__(threads_per_block) convert_dense_kernel(Y* y, const X* x, int64_t n) {
  constexpr int width = 16 / static_cast<int>(sizeof(Y) > sizeof(X) ? sizeof(Y) : sizeof(X));
  struct alignas(sizeof(Y) * width) Out {
    Y items[width];
  };
  struct alignas(sizeof(X) * width) In {
    X items[width];
  };
  cuda::for_each_item(n / width, [&](int64_t i) {
    const In in = reinterpret_cast<const In*>(x)[i];
    Out out;
#pragma unroll
    for (int j = 0; j < width; ++j) out.items[j] = cuda::convert<Y>(in.items[j]);
    reinterpret_cast<Out*>(y)[i] = out;
  });
  cuda::for_each_item(n % width,
                      [&](int64_t i) { y[n / width * width + i] = cuda::convert<Y>(x[n / width * width + i]); });
}

// y[b][r][c] = x[b][c][r], by tiles through shared memory, so that both sides go along their rows. Strides in elements.
template <class T>
__global__ void __launch_bounds__(tile* tile_rows)
    transpose_kernel(T* y, const T* x, int64_t rows, int64_t columns, int64_t y_row, int64_t x_column, int64_t y_batch,
                     int64_t x_batch) {
  __shared__ T tiles[tile][tile + 1];
  y += blockIdx.z * y_batch;
  x += blockIdx.z * x_batch;
  const int64_t row = int64_t{blockIdx.x} * tile, column = int64_t{blockIdx.y} * tile;
  for (int i = threadIdx.y; i < tile; i += tile_rows)
    if (column + i < columns && row + threadIdx.x < rows)
      tiles[i][threadIdx.x] = x[(column + i) * x_column + row + threadIdx.x];
  __syncthreads();
  for (int i = threadIdx.y; i < tile; i += tile_rows)
    if (row + i < rows && column + threadIdx.x < columns)
      y[(row + i) * y_row + column + threadIdx.x] = tiles[threadIdx.x][i];
}

template <class T>
__global__ void __launch_bounds__(threads_per_block) fill_kernel(Walk<1> walk, T value) {
  cuda::for_each_item(walk.numel,
                      [&](uint32_t i) { *reinterpret_cast<T*>(walk.data[0] + walk.offsets(i)[0]) = value; });
}

template <class C>
__global__ void __launch_bounds__(threads_per_block)
    arange_kernel(char* y, DType dtype, int64_t stride, int64_t n, C start, C step) {
  cuda::for_each_item(n, [&](int64_t i) { cuda::store(y + i * stride, dtype, start + static_cast<C>(i) * step); });
}

// Transposed matrices, one or a batch: y goes along its last dimension, x along the one before it.
bool transpose(cuda::Gpu& gpu, const View& y, const View& x) {
  const cpu::Loop<2> loop({&y, &x});
  const auto item = static_cast<int64_t>(item_size(y.dtype));
  const int r = loop.rank() - 2;
  if (r < 0 || r > 1 || loop.stride(0, r + 1) != item || loop.stride(1, r) != item) return false;
  const int64_t rows = loop.extent(r), columns = loop.extent(r + 1), batch = r == 1 ? loop.extent(0) : 1;
  const int64_t down = (columns + tile - 1) / tile;
  if (rows < tile || columns < tile || down > 65535 || batch > 65535) return false;
  const dim3 blocks(static_cast<unsigned>((rows + tile - 1) / tile), static_cast<unsigned>(down),
                    static_cast<unsigned>(batch));
  cuda::with_bits(y.dtype, [&]<class T> {
    cuda::launch(gpu, "copy", &transpose_kernel<T>, blocks, dim3(tile, tile_rows), 0,
                 reinterpret_cast<T*>(loop.data()[0]), reinterpret_cast<const T*>(loop.data()[1]), rows, columns,
                 loop.stride(0, r) / item, loop.stride(1, r + 1) / item, r == 1 ? loop.stride(0, 0) / item : 0,
                 r == 1 ? loop.stride(1, 0) / item : 0);
  });
  return true;
}

void move(cuda::Gpu& gpu, const View& y, const View& x) {
  const cpu::Loop<2> loop({&y, &x});
  const auto item = item_size(y.dtype);
  if (loop.contiguous(0, item) && loop.contiguous(1, item)) {
    const cuda::DeviceScope scope(gpu.index());
    return cuda::check_cuda(
        cudaMemcpyAsync(loop.data()[0], loop.data()[1], y.bytes(), cudaMemcpyDeviceToDevice, gpu.stream()), "copy");
  }
  if (transpose(gpu, y, x)) return;
  cuda::with_bits(y.dtype, [&]<class T> {
    cuda::for_each_walk<2>({&y, &x}, cpu::Order::any, [&](const Walk<2>& walk, int64_t) {
      cuda::launch(gpu, "copy", &move_kernel<T>, cuda::grid_for(gpu, walk.numel), threads_per_block, 0, walk);
    });
  });
}

void convert_dense(cuda::Gpu& gpu, const View& y, const View& x) {
  const int64_t n = y.numel();
  with_floating("copy", y.dtype, [&]<class Y> {
    with_floating("copy", x.dtype, [&]<class X> {
      cuda::launch(gpu, "copy", &convert_dense_kernel<Y, X>, cuda::grid_for(gpu, n / 4 + 1), threads_per_block, 0,
                   y.as<Y>(), x.as<const X>(), n);
    });
  });
}

// Memory of the host moves in the stream; what is written there is waited for, as the caller reads it next.
void transfer(cuda::Gpu& gpu, const View& y, const View& x) {
  const cuda::DeviceScope scope(gpu.index());
  const cudaStream_t stream = gpu.stream();
  cuda::check_cuda(cudaMemcpyAsync(y.data, x.data, y.bytes(), cudaMemcpyDefault, stream), "copy between devices");
  if (y.device.kind == Device::cuda) return;  // pageable memory of the host has been read by now
  cuda::check_cuda(cudaStreamSynchronize(stream), "copy between devices");
  gpu.check_faults();
}

// What follows in a stream of `waiting` comes after what is in a stream of `first` now.
void order_streams(const cuda::Gpu& first, const cuda::Gpu& waiting) {
  std::shared_ptr<void> event;
  {
    const cuda::DeviceScope scope(first.index());
    event = cuda::new_event();
    cuda::check_cuda(cudaEventRecord(static_cast<cudaEvent_t>(event.get()), first.stream()), "cudaEventRecord");
  }
  const cuda::DeviceScope scope(waiting.index());
  cuda::check_cuda(cudaStreamWaitEvent(waiting.stream(), static_cast<cudaEvent_t>(event.get())), "cudaStreamWaitEvent");
}

// From one GPU to another, in the order of both their streams: x has been written before and may be written after.
void transfer_between(cuda::Gpu& gpu, const View& y, const View& x) {
  const cuda::Gpu& from = cuda::gpu_of(x);
  order_streams(from, gpu);
  transfer(gpu, y, x);
  order_streams(gpu, from);
}

template <class T>
void fill_with(cuda::Gpu& gpu, const View& y, T value) {
  cuda::for_each_walk<1>({&y}, cpu::Order::any, [&](const Walk<1>& walk, int64_t) {
    cuda::launch(gpu, "fill", &fill_kernel<T>, cuda::grid_for(gpu, walk.numel), threads_per_block, 0, walk, value);
  });
}

}  // namespace

void Cuda::copy(const View& y, const View& x) {
  if (y.numel() == 0) return;
  if (y.device != x.device) return y.device.kind == x.device.kind ? transfer_between(gpu_, y, x) : transfer(gpu_, y, x);
  if (y.dtype == x.dtype) return move(gpu_, y, x);
  const cpu::Loop<2> loop({&y, &x});
  const bool dense = loop.contiguous(0, item_size(y.dtype)) && loop.contiguous(1, item_size(x.dtype));
  if (dense && is_floating(y.dtype) && is_floating(x.dtype) && cuda::is_aligned(y.data) && cuda::is_aligned(x.data))
    return convert_dense(gpu_, y, x);
  cuda::with_compute(cuda::compute_of(x.dtype), [&]<class C> {
    cuda::for_each_walk<2>({&y, &x}, cpu::Order::any, [&](const Walk<2>& walk, int64_t) {
      cuda::launch(gpu_, "copy", &convert_kernel<C>, cuda::grid_for(gpu_, walk.numel), threads_per_block, 0, walk,
                   y.dtype, x.dtype);
    });
  });
}

void Cuda::fill(const View& y, double value) {
  with_type(y.dtype, [&]<class T> {
    if constexpr (std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>)
      fill_with(gpu_, y, T(static_cast<float>(value)));
    else
      fill_with(gpu_, y, static_cast<T>(value));
  });
}

void Cuda::fill(const View& y, int64_t value) {
  with_type(y.dtype, [&]<class T> {
    if constexpr (std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>)
      fill_with(gpu_, y, T(static_cast<float>(value)));
    else
      fill_with(gpu_, y, static_cast<T>(value));
  });
}

// Whole numbers are counted exactly, beyond what a double can hold.
void Cuda::arange(const View& y, double start, double step) {
  constexpr double exact = 9007199254740992.0;  // 2^53
  const auto whole = [](double v) { return std::abs(v) <= exact && v == std::nearbyint(v); };
  const auto count = [&]<class C>(C first, C by) {
    cuda::launch(gpu_, "arange", &arange_kernel<C>, cuda::grid_for(gpu_, y.numel()), threads_per_block, 0, y.as<char>(),
                 y.dtype, y.strides[0] * static_cast<int64_t>(item_size(y.dtype)), y.numel(), first, by);
  };
  if (y.numel() == 0) return;
  if (is_integral(y.dtype) && whole(start) && whole(step))
    return count(static_cast<int64_t>(start), static_cast<int64_t>(step));
  count(start, step);
}

}  // namespace loom
