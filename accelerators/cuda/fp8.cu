// Rounding to 8 bits with delayed scaling: the factor comes from what a tensor's largest magnitudes have been, all of
// it on the device.
#include <cmath>

#include <loom/accelerators/cuda/dense.h>
#include <loom/accelerators/cuda/fused.h>
#include <loom/accelerators/cuda/rows.h>
#include <loom/accelerators/float8.h>

namespace loom {

namespace {

using cuda::Larger;
using cuda::Run;
using cuda::threads_per_block;

constexpr const char* name = "fp8_quantize";
constexpr int codes_at_once = 16;

// Where the numbers of a scaling's state lie.
enum Place : int { factor_now, factor_before, next_slot, history };

// Two neighbours, the first in the low byte.
__device__ __forceinline__ uint16_t two_codes(Fp8 format, float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint16_t both;
  if (format == Fp8::e4m3)
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(both) : "f"(second), "f"(first));
  else
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(both) : "f"(second), "f"(first));
  return both;
#else
  return static_cast<uint16_t>(code_of(format, first) | code_of(format, second) << 8);
#endif
}

template <class S>
struct Rounding {
  using T = compute_type<S>;
  const S* x;
  uint8_t* codes;  // or null: x is measured alone
  const float* factor;
  float* parts;  // the largest magnitude that each block has seen
  Fp8 format;

  template <int count>
  __device__ __forceinline__ float operator()(int64_t at, float by) const {
    constexpr int width = count < cuda::Pack<S>::width ? count : cuda::Pack<S>::width;
    float largest = 0;
    Run<uint8_t, count> out;
#pragma unroll
    for (int first = 0; first < count; first += width) {
      const auto run = cuda::read_run<width>(x + at + first);
#pragma unroll
      for (int j = 0; j < width; j += 2) {
        const auto a = static_cast<float>(static_cast<T>(run.items[j])),
                   b = width > 1 ? static_cast<float>(static_cast<T>(run.items[width > 1 ? j + 1 : j])) : 0.0f;
        largest = Larger()(largest, Larger()(std::fabs(a), std::fabs(b)));
        const uint16_t both = two_codes(format, a * by, b * by);
        out.items[first + j] = static_cast<uint8_t>(both & 0xffu);
        if (width > 1) out.items[first + (width > 1 ? j + 1 : j)] = static_cast<uint8_t>(both >> 8);
      }
    }
    if (codes != nullptr) cuda::write_run(codes + at, out);
    return largest;
  }
};

template <class S, int count>
__global__ void __launch_bounds__(threads_per_block) round_kernel(Rounding<S> rounding, int64_t runs) {
  float largest = 0;
  const float by = *rounding.factor;
  cuda::for_each_item(
      runs, [&](int64_t i) { largest = Larger()(largest, rounding.template operator()<count>(i * count, by)); });
  largest = cuda::across_block<threads_per_block>(largest, Larger());
  if (threadIdx.x == 0) rounding.parts[blockIdx.x] = largest;
}

// Notes the largest magnitude and sets the next factor. One block.
__global__ void __launch_bounds__(threads_per_block)
    note_kernel(float* state, float* inverse, const float* parts, int count, int length, float most, bool again) {
  if (again) {
    if (threadIdx.x == 0) *inverse = 1.0f / state[factor_before];
    return;
  }
  float now = 0, seen = 0;
  for (int i = threadIdx.x; i < count; i += threads_per_block) now = Larger()(now, parts[i]);
  now = cuda::across_block<threads_per_block>(now, Larger());
  const bool counts = now <= std::numeric_limits<float>::max();
  const int slot = static_cast<int>(state[next_slot]);
  for (int i = threadIdx.x; i < length; i += threads_per_block)
    seen = Larger()(seen, counts && i == slot ? now : state[history + i]);
  seen = cuda::across_block<threads_per_block>(seen, Larger());
  if (threadIdx.x != 0) return;
  const float used = state[factor_now];
  if (counts) {
    state[history + slot] = now;
    state[next_slot] = static_cast<float>(slot + 1 < length ? slot + 1 : 0);
  }
  state[factor_before] = used;
  *inverse = 1.0f / used;
  if (seen == 0) return;  // nothing but zeros: the factor stays
  const float next = most / seen;
  state[factor_now] = next <= std::numeric_limits<float>::max() ? next : std::numeric_limits<float>::max();
}

template <class S>
void quantize(cuda::Gpu& gpu, const S* x, int64_t numel, uint8_t* codes, float* inverse, const Fp8Scaling& s) {
  float* const state = s.state.as<float>();
  const bool aligned = numel % codes_at_once == 0 && cuda::is_aligned(x) && cuda::is_aligned(codes);
  const int64_t runs = aligned ? numel / codes_at_once : numel;
  const int blocks = cuda::grid_for(gpu, runs);
  const cuda::Scratch parts(gpu, static_cast<size_t>(blocks) * sizeof(float));
  const auto round = [&](uint8_t* to, bool again) {
    const Rounding<S> rounding{x, to, state + (again ? factor_before : factor_now), parts.as<float>(), s.format};
    if (aligned)
      cuda::launch(gpu, name, &round_kernel<S, codes_at_once>, blocks, threads_per_block, 0, rounding, runs);
    else
      cuda::launch(gpu, name, &round_kernel<S, 1>, blocks, threads_per_block, 0, rounding, runs);
    cuda::launch(gpu, name, &note_kernel, 1, threads_per_block, 0, state, inverse, parts.as<const float>(), blocks,
                 static_cast<int>(s.state.numel() - history),
                 static_cast<float>(static_cast<double>(largest(s.format)) / std::exp2(s.margin)), again);
  };
  if (s.first && !s.again) round(nullptr, false);
  round(codes, s.again);
}

}  // namespace

void CudaFused::fp8_quantize(const View& codes, const View& inverse, const View& x, const Fp8Scaling& scaling) {
  with_floating(name, x.dtype, [&]<class S> {
    const cuda::DenseInput in(gpu_, kernels_, x, x.dtype);
    quantize(gpu_, in.as<S>(), x.numel(), codes.as<uint8_t>(), inverse.as<float>(), scaling);
  });
}

}  // namespace loom
