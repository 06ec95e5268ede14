// Random numbers, with the bits that the CPU draws: a thread takes a block of Philox's four words at a time. Compiled
// without fused multiply-adds.
#include <loom/accelerators/random.h>

#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/cuda/launch.h>
#include <loom/accelerators/cuda/layout.h>

namespace loom {

namespace {

using cuda::threads_per_block;

// Numbers of type T that four words make.
template <class T>
inline constexpr int numbers = 16 / static_cast<int>(sizeof(T));

struct Words {
  uint32_t at[4];
  // state: resolved.
  __device__ Words(const Philox& state, int64_t block) {
    const auto drawn = state.block(static_cast<uint64_t>(block));
    for (int i = 0; i < 4; ++i) at[i] = drawn[i];
  }
};

// Number i of the words, in [0, 1).
template <class T>
__device__ T unit(const Words& w, int i) {
  if constexpr (std::is_same_v<T, float>)
    return to_uniform(w.at[i]);
  else
    return to_uniform(w.at[2 * i], w.at[2 * i + 1]);
}

template <class T>
struct Uniform {
  T a, width, limit;
  __device__ void operator()(const Words& w, T* out) const {
#pragma unroll
    for (int i = 0; i < numbers<T>; ++i) out[i] = draw::uniform(unit<T>(w, i), a, width, limit);
  }
};
template <class T>
struct Normal {
  T mean, deviation;
  __device__ void operator()(const Words& w, T* out) const {
#pragma unroll
    for (int i = 0; i < numbers<T>; i += 2) {
      const auto z = draw::normal_pair(unit<T>(w, i), unit<T>(w, i + 1));
      out[i] = mean + deviation * z.first;
      out[i + 1] = mean + deviation * z.second;
    }
  }
};
template <class T>
struct Bernoulli {
  T probability;
  __device__ void operator()(const Words& w, T* out) const {
#pragma unroll
    for (int i = 0; i < numbers<T>; ++i) out[i] = unit<T>(w, i) < probability ? T(1) : T(0);
  }
};
struct Integers {
  int64_t first;
  uint64_t range;
  __device__ void operator()(const Words& w, int64_t* out) const {
#pragma unroll
    for (int i = 0; i < numbers<int64_t>; ++i) out[i] = draw::integer(w.at[2 * i], w.at[2 * i + 1], first, range);
  }
};

// What one block makes goes to y in one piece. The last elements, too few for a block, are the first thread's.
template <class Y, class T, class Draw>
__global__ void __launch_bounds__(threads_per_block) dense_kernel(Y* y, int64_t n, Philox given, Draw draw) {
  const Philox state = given.resolved();
  constexpr int width = numbers<T>;
  struct alignas(sizeof(Y) * width) Run {
    Y items[width];
  };
  cuda::for_each_item(n / width, [&](int64_t i) {
    T drawn[width];
    draw(Words(state, i), drawn);
    Run run;
#pragma unroll
    for (int j = 0; j < width; ++j) run.items[j] = cuda::convert<Y>(drawn[j]);
    reinterpret_cast<Run*>(y)[i] = run;
  });
  if (n % width == 0 || blockIdx.x != 0 || threadIdx.x != 0) return;
  T drawn[width];
  draw(Words(state, n / width), drawn);
  for (int j = 0; j < width - 1; ++j)
    if (n / width * width + j < n) y[n / width * width + j] = cuda::convert<Y>(drawn[j]);
}

// Any layout and dtype. The walk's elements are those from `first` on.
template <class T, class Draw>
__global__ void __launch_bounds__(threads_per_block)
    any_kernel(cuda::Walk<1> walk, int64_t first, DType dtype, Philox given, Draw draw) {
  const Philox state = given.resolved();
  constexpr int width = numbers<T>;
  const int64_t begin = first / width, end = (first + walk.numel + width - 1) / width;
  cuda::for_each_item(end - begin, [&](int64_t i) {
    T drawn[width];
    draw(Words(state, begin + i), drawn);
#pragma unroll
    for (int j = 0; j < width; ++j) {
      const int64_t at = (begin + i) * width + j - first;
      if (at >= 0 && at < walk.numel)
        cuda::store(walk.data[0] + walk.offsets(static_cast<uint32_t>(at))[0], dtype, drawn[j]);
    }
  });
}

template <class T, class Draw>
void run(cuda::Gpu& gpu, const View& y, const Philox& state, const Draw& draw) {
  const int64_t n = y.numel();
  if (n == 0) return;
  if (std::is_floating_point_v<T> && is_floating(y.dtype) && y.is_contiguous() && cuda::is_aligned(y.data)) {
    with_floating("random", y.dtype, [&]<class Y> {
      if constexpr (std::is_floating_point_v<T> && std::is_same_v<T, compute_type<Y>>)
        cuda::launch(gpu, "random", &dense_kernel<Y, T, Draw>, cuda::grid_for(gpu, n / numbers<T>), threads_per_block,
                     0, y.as<Y>(), n, state, draw);
    });
    return;
  }
  cuda::for_each_walk<1>({&y}, cpu::Order::row_major, [&](const cuda::Walk<1>& walk, int64_t first) {
    cuda::launch(gpu, "random", &any_kernel<T, Draw>, cuda::grid_for(gpu, walk.numel / numbers<T> + 2),
                 threads_per_block, 0, walk, first, y.dtype, state, draw);
  });
}

template <class T>
void draw_floating(cuda::Gpu& gpu, Random kind, const View& y, double a, double b, const Philox& state) {
  const T first = static_cast<T>(a), second = static_cast<T>(b);
  if (kind == Random::uniform)
    run<T>(gpu, y, state, Uniform<T>{first, static_cast<T>(b - a), draw::largest_below<T>(y.dtype, b)});
  else if (kind == Random::normal)
    run<T>(gpu, y, state, Normal<T>{first, second});
  else
    run<T>(gpu, y, state, Bernoulli<T>{first});
}

}  // namespace

void Cuda::random(Random kind, const View& y, double a, double b, const Philox& state) {
  if (kind == Random::integers) {
    const auto first = static_cast<int64_t>(a);
    const uint64_t range = static_cast<uint64_t>(static_cast<int64_t>(b)) - static_cast<uint64_t>(first);
    return run<int64_t>(gpu_, y, state, Integers{first, range});
  }
  if (kind != Random::bernoulli)
    check(is_floating(y.dtype), kind == Random::uniform ? "uniform" : "normal", ": expects a floating dtype, got ",
          y.dtype);
  if (y.dtype == f64)
    draw_floating<double>(gpu_, kind, y, a, b, state);
  else
    draw_floating<float>(gpu_, kind, y, a, b, state);
}

}  // namespace loom
