// Dropout and its gradient, with the CPU's mask: a thread draws the words of the elements that it moves.
#include <loom/accelerators/random.h>

#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/cuda/launch.h>
#include <loom/accelerators/cuda/layout.h>

namespace loom {

namespace {

using cuda::threads_per_block;

// Elements that a thread moves at once: of 16 bits what a block of Philox is for, of others half of that, so that
// neighbours write what lies together.
template <class S>
inline constexpr int run_length = sizeof(S) == 2 ? 8 : 4;
template <class S>
struct alignas(16) Run {
  S items[run_length<S>];
};
template <class S>
struct alignas(run_length<S>) Flags {
  uint8_t items[run_length<S>];
};

// By multiplication, as on the CPU: what is dropped of a NaN is a NaN.
template <class S>
__device__ S scaled(S x, uint8_t kept, compute_type<S> factor) {
  using T = compute_type<S>;
  return cuda::convert<S>(static_cast<T>(x) * (static_cast<T>(kept) * factor));
}

// Whether an element is kept, by its 16 bits of a block's words.
struct Keep {
  Philox state;
  uint32_t kept;
  static constexpr uint32_t elements = 8;  // a block's; unsigned, so that dividing is a shift
  __device__ Keep resolved() const { return {state.resolved(), kept}; }
  __device__ std::array<uint32_t, 4> words(int64_t element) const {
    return state.block(static_cast<uint64_t>(element) / elements);
  }
  __device__ uint8_t operator()(const std::array<uint32_t, 4>& words, int64_t element) const {
    return draw::half_word(words, static_cast<uint32_t>(element) % elements) < kept ? 1 : 0;
  }
};

template <class S>
__global__ void __launch_bounds__(threads_per_block)
    dropout_kernel(S* y, uint8_t* mask, const S* x, int64_t n, compute_type<S> factor, Keep given) {
  const Keep keep = given.resolved();
  constexpr int length = run_length<S>;
  cuda::for_each_item(n / length, [&](int64_t i) {
    const Run<S> in = reinterpret_cast<const Run<S>*>(x)[i];
    Run<S> out;
    Flags<S> kept;
    const auto words = keep.words(i * length);
#pragma unroll
    for (int j = 0; j < length; ++j) {
      kept.items[j] = keep(words, i * length + j);
      out.items[j] = scaled(in.items[j], kept.items[j], factor);
    }
    reinterpret_cast<Run<S>*>(y)[i] = out;
    reinterpret_cast<Flags<S>*>(mask)[i] = kept;
  });
  cuda::for_each_item(n % length, [&](int64_t i) {
    const int64_t at = n / length * length + i;
    mask[at] = keep(keep.words(at), at);
    y[at] = scaled(x[at], mask[at], factor);
  });
}

template <class S>
__global__ void __launch_bounds__(threads_per_block)
    grad_kernel(S* dx, const S* g, const uint8_t* mask, int64_t n, compute_type<S> factor) {
  constexpr int length = run_length<S>;
  cuda::for_each_item(n / length, [&](int64_t i) {
    const Run<S> in = reinterpret_cast<const Run<S>*>(g)[i];
    const Flags<S> kept = reinterpret_cast<const Flags<S>*>(mask)[i];
    Run<S> out;
#pragma unroll
    for (int j = 0; j < length; ++j) out.items[j] = scaled(in.items[j], kept.items[j], factor);
    reinterpret_cast<Run<S>*>(dx)[i] = out;
  });
  cuda::for_each_item(n % length, [&](int64_t i) {
    const int64_t at = n / length * length + i;
    dx[at] = scaled(g[at], mask[at], factor);
  });
}

// Any layout of y and x, element by element; the walk's elements are those from `first` on.
template <class S, bool draws>
__global__ void __launch_bounds__(threads_per_block)
    any_kernel(cuda::Walk<2> walk, int64_t first, uint8_t* mask, compute_type<S> factor, Keep given) {
  const Keep keep = given.resolved();
  cuda::for_each_item(walk.numel, [&](uint32_t i) {
    const auto at = walk.offsets(i);
    const int64_t element = first + i;
    if constexpr (draws) mask[element] = keep(keep.words(element), element);
    *reinterpret_cast<S*>(walk.data[0] + at[0]) =
        scaled(*reinterpret_cast<const S*>(walk.data[1] + at[1]), mask[element], factor);
  });
}

template <class S, bool draws>
void run(cuda::Gpu& gpu, const View& y, const View& x, uint8_t* mask, double scale, const Keep& keep) {
  const auto factor = static_cast<compute_type<S>>(scale);
  const int64_t n = y.numel();
  const bool dense = y.is_contiguous() && x.is_contiguous();
  if (dense && cuda::is_aligned(y.data) && cuda::is_aligned(x.data) && cuda::is_aligned(mask)) {
    const int blocks = cuda::grid_for(gpu, n / run_length<S> + 1);
    if constexpr (draws)
      cuda::launch(gpu, "dropout", &dropout_kernel<S>, blocks, threads_per_block, 0, y.as<S>(), mask, x.as<const S>(),
                   n, factor, keep);
    else
      cuda::launch(gpu, "dropout", &grad_kernel<S>, blocks, threads_per_block, 0, y.as<S>(), x.as<const S>(), mask, n,
                   factor);
    return;
  }
  cuda::for_each_walk<2>({&y, &x}, cpu::Order::row_major, [&](const cuda::Walk<2>& walk, int64_t first) {
    cuda::launch(gpu, "dropout", &any_kernel<S, draws>, cuda::grid_for(gpu, walk.numel), threads_per_block, 0, walk,
                 first, mask, factor, keep);
  });
}

}  // namespace

void Cuda::dropout(const View& y, const View& mask, const View& x, uint32_t kept, double scale, const Philox& state) {
  if (y.numel() == 0) return;
  with_floating("dropout", x.dtype, [&]<class S> {
    run<S, true>(gpu_, y, x, mask.as<uint8_t>(), scale, Keep{state, kept});
  });
}

void Cuda::dropout_grad(const View& dx, const View& g, const View& mask, double scale) {
  if (dx.numel() == 0) return;
  with_floating("dropout", g.dtype, [&]<class S> { run<S, false>(gpu_, dx, g, mask.as<uint8_t>(), scale, Keep{}); });
}

}  // namespace loom
