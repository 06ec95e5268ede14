// Gradients that carry a loss scale. The factor is read and what was found is left on the device: the host does not
// wait.
#include <bit>

#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/cuda/pieces.h>

namespace loom {

namespace {

using cuda::four;
using cuda::threads_per_block;

struct Slot {
  int64_t numel;
  void* grad;
  DType dtype;
  bool aligned;  // to four elements
};

template <class T, class Bits>
__device__ bool is_finite(T x) {
  constexpr int sign = 8 * sizeof(T) - 1;
  constexpr Bits infinite = std::bit_cast<Bits>(std::numeric_limits<T>::infinity());
  return (std::bit_cast<Bits>(x) & ~(Bits{1} << sign)) < infinite;
}

// The thread's part of elements [begin, end), element by element; whether all were finite.
template <class T, class Bits>
__device__ bool scale(T* x, int64_t begin, int64_t end, float factor) {
  bool finite = true;
  for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
    finite = finite && is_finite<T, Bits>(x[i]);
    x[i] *= static_cast<T>(factor);
  }
  return finite;
}

// The same four at a time, and what is left.
__device__ bool scale_packs(float* x, int64_t begin, int64_t end, float factor) {
  bool finite = true;
  const int64_t packed = begin + (end - begin) / four * four;
  for (int64_t i = begin + int64_t{threadIdx.x} * four; i < packed; i += int64_t{blockDim.x} * four) {
    auto& pack = reinterpret_cast<cuda::Pack<float>*>(x + i)[0];
    cuda::Pack<float> values = pack;
#pragma unroll
    for (int j = 0; j < four; ++j) {
      finite = finite && is_finite<float, uint32_t>(values.items[j]);
      values.items[j] *= factor;
    }
    pack = values;
  }
  return scale<float, uint32_t>(x, packed, end, factor) && finite;
}

__device__ bool all_finite(const uint16_t* x, int64_t begin, int64_t end, uint16_t infinite, bool aligned) {
  struct alignas(8) Run {
    uint16_t items[four];
  };
  bool finite = true;
  const int64_t packed = aligned ? begin + (end - begin) / four * four : begin;
  for (int64_t i = begin + int64_t{threadIdx.x} * four; i < packed; i += int64_t{blockDim.x} * four) {
    const Run run = reinterpret_cast<const Run*>(x + i)[0];
#pragma unroll
    for (int j = 0; j < four; ++j) finite = finite && (run.items[j] & 0x7fffu) < infinite;
  }
  for (int64_t i = packed + threadIdx.x; i < end; i += blockDim.x) finite = finite && (x[i] & 0x7fffu) < infinite;
  return finite;
}

__global__ void __launch_bounds__(threads_per_block)
    unscale_kernel(const __grid_constant__ cuda::Table<Slot> table, const float* factor, float* found) {
  const cuda::Part part = cuda::part_of_block(table);
  const Slot& slot = table.slots[part.slot];
  bool finite;
  if (slot.dtype == f32 && slot.aligned)
    finite = scale_packs(static_cast<float*>(slot.grad), part.begin, part.end, *factor);
  else if (slot.dtype == f32)
    finite = scale<float, uint32_t>(static_cast<float*>(slot.grad), part.begin, part.end, *factor);
  else if (slot.dtype == f64)
    finite = scale<double, uint64_t>(static_cast<double*>(slot.grad), part.begin, part.end, *factor);
  else
    finite = all_finite(static_cast<const uint16_t*>(slot.grad), part.begin, part.end,
                        slot.dtype == f16 ? 0x7c00u : 0x7f80u, slot.aligned);
  if (!finite) *found = 1;  // whoever writes, writes the same
}

}  // namespace

void Cuda::unscale(std::span<const UpdatePiece> pieces, const View& factor, const View& found) {
  for (const UpdatePiece& piece : pieces)
    check(is_floating(piece.grad.dtype), "unscale: expects a floating dtype, got ", piece.grad.dtype);
  const auto slot_of = [](const UpdatePiece& p) {
    return Slot{p.numel, p.grad.data, p.grad.dtype,
                reinterpret_cast<uintptr_t>(p.grad.data) % (four * item_size(p.grad.dtype)) == 0};
  };
  cuda::for_each_table<Slot>(
      pieces, [](const UpdatePiece&) { return true; }, slot_of,
      [&](const cuda::Table<Slot>& table) {
        cuda::launch(gpu_, "unscale", &unscale_kernel, table.chunks(), threads_per_block, 0, table,
                     factor.as<const float>(), found.as<float>());
      });
}

}  // namespace loom
