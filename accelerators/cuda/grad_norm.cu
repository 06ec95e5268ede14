// The norm of all gradients and what they are multiplied with for it: some launches however many there are, and nothing
// that the host reads.
#include <cmath>

#include <loom/accelerators/cuda/fused.h>
#include <loom/accelerators/cuda/pieces.h>
#include <loom/accelerators/cuda/rows.h>
#include <loom/accelerators/cuda/scratch.h>

namespace loom {

namespace {

using cuda::Plus;
using cuda::Run;
using cuda::threads_per_block;

struct Slot {
  int64_t numel;
  void* grad;
  DType dtype;
  bool aligned;  // to 16 bytes
};

// f.operator()<count>(i) for the elements [i, i + count) of this thread in [begin, end).
template <class S, class F>
__device__ __forceinline__ void for_part(const Slot& slot, int64_t begin, int64_t end, const F& f) {
  constexpr int width = cuda::Pack<S>::width;
  const int64_t packed = slot.aligned ? begin + (end - begin) / width * width : begin;
  for (int64_t i = begin + int64_t{threadIdx.x} * width; i < packed; i += int64_t{threads_per_block} * width)
    f.template operator()<width>(i);
  for (int64_t i = packed + threadIdx.x; i < end; i += threads_per_block) f.template operator()<1>(i);
}

// f.operator()<S>() with the type of a slot's elements.
template <class F>
__device__ __forceinline__ void with_slot_type(DType t, const F& f) {
  if (t == DType::f32)
    f.template operator()<float>();
  else if (t == DType::bf16)
    f.template operator()<BFloat16>();
  else if (t == DType::f16)
    f.template operator()<Half>();
  else
    f.template operator()<double>();
}

__global__ void __launch_bounds__(threads_per_block)
    squares_kernel(const __grid_constant__ cuda::Table<Slot> table, double* parts, const float* factor) {
  const cuda::Part part = cuda::part_of_block(table);
  const Slot& slot = table.slots[part.slot];
  double sum = 0;
  with_slot_type(slot.dtype, [&]<class S> {
    const S* const x = static_cast<const S*>(slot.grad);
    for_part<S>(slot, part.begin, part.end, [&]<int count>(int64_t i) {
      const auto run = cuda::read_run<count>(x + i);
#pragma unroll
      for (int j = 0; j < count; ++j) {
        const auto value = static_cast<double>(static_cast<compute_type<S>>(run.items[j]));
        sum += value * value;
      }
    });
    if (sizeof(S) == 2 && factor != nullptr) sum *= static_cast<double>(*factor) * static_cast<double>(*factor);
  });
  sum = cuda::across_block<threads_per_block>(sum, Plus());
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(threads_per_block) root_kernel(double* total, const double* parts, int64_t count) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += threads_per_block) sum += parts[i];
  sum = cuda::across_block<threads_per_block>(sum, Plus());
  if (threadIdx.x == 0) *total = std::sqrt(sum);
}

__global__ void __launch_bounds__(threads_per_block)
    scale_kernel(const __grid_constant__ cuda::Table<Slot> table, const double* factor) {
  const cuda::Part part = cuda::part_of_block(table);
  const Slot& slot = table.slots[part.slot];
  with_slot_type(slot.dtype, [&]<class S> {
    using T = compute_type<S>;
    S* const x = static_cast<S*>(slot.grad);
    const T by = static_cast<T>(*factor);
    for_part<S>(slot, part.begin, part.end, [&]<int count>(int64_t i) {
      auto run = cuda::read_run<count>(x + i);
#pragma unroll
      for (int j = 0; j < count; ++j) run.items[j] = static_cast<S>(static_cast<T>(run.items[j]) * by);
      cuda::write_run(x + i, run);
    });
  });
}

__global__ void finite_kernel(const double* norm, cuda::Fault* fault, const char* op) {
  if (!(*norm <= std::numeric_limits<double>::max())) cuda::report(fault, cuda::FaultKind::norm, op, 0, 0, 0);
}

Slot slot_of(const UpdatePiece& p) {
  return {p.numel, p.grad.data, p.grad.dtype, reinterpret_cast<uintptr_t>(p.grad.data) % 16 == 0};
}
bool every(const UpdatePiece&) { return true; }

void check_floating(const char* op, std::span<const UpdatePiece> pieces) {
  for (const UpdatePiece& piece : pieces)
    check(is_floating(piece.grad.dtype), op, ": expects a floating dtype, got ", piece.grad.dtype);
}

}  // namespace

void CudaFused::grad_norm(const View& total, std::span<const UpdatePiece> pieces, const View& factor) {
  check_floating("grad_norm", pieces);
  int64_t chunks = 0;
  for (const UpdatePiece& p : pieces) chunks += (p.numel + cuda::chunk - 1) / cuda::chunk;
  const cuda::Scratch parts(gpu_, static_cast<size_t>(chunks) * sizeof(double));
  double* next = parts.as<double>();
  cuda::for_each_table<Slot>(pieces, every, slot_of, [&](const cuda::Table<Slot>& table) {
    cuda::launch(gpu_, "grad_norm", &squares_kernel, table.chunks(), threads_per_block, 0, table, next,
                 factor.as<const float>());
    next += table.chunks();
  });
  cuda::launch(gpu_, "grad_norm", &root_kernel, 1, threads_per_block, 0, total.as<double>(), parts.as<const double>(),
               chunks);
}

void CudaFused::scale_grads(std::span<const UpdatePiece> pieces, const View& factor) {
  check_floating("scale_grads", pieces);
  cuda::for_each_table<Slot>(pieces, every, slot_of, [&](const cuda::Table<Slot>& table) {
    cuda::launch(gpu_, "scale_grads", &scale_kernel, table.chunks(), threads_per_block, 0, table,
                 factor.as<const double>());
  });
}

void CudaFused::require_finite_norm(const View& norm) {
  cuda::launch(gpu_, "clip_gradients", &finite_kernel, 1, 1, 0, norm.as<const double>(), gpu_.fault(),
               "clip_gradients");
}

}  // namespace loom
