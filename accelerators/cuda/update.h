// Optimizer steps over pieces of parameters, whatever the formula: what is read and written of four elements at a time.
// All of it is read before any of it is looked at. Included by files that are compiled without fused multiply-adds, so
// that results have the CPU's bits.
#pragma once

#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/cuda/pieces.h>

#if defined(__CUDACC__)
namespace loom::cuda {

// One piece. `main` is what the step reads and changes: the master, or the value where there is none.
struct UpdateSlot {
  int64_t numel;
  char *main, *value, *grad;
  std::array<char*, 3> states;
  const float* factor;
  Philox rounding;
  std::array<double, 2> rates;  // of the formula, for this piece
  DType main_type, value_type, grad_type;
  std::array<DType, 3> state_types;
  bool has_master, value_written, rounds;
  bool fresh;    // states start at 0, whatever lies there
  bool aligned;  // all arrays, to four elements
};

// Elements next to each other: `four` of them, where all arrays are aligned to that, or one.
template <class T, int width>
struct Run {
  T at[width];
};
template <class T, int width, int N>
struct Elements {
  Run<T, width> x, dx;
  std::array<Run<T, width>, N> states;
};

// `width` elements of 2 or 4 bytes as they lie in memory, or one of any floating dtype.
struct Raw {
  uint32_t words[4];
};
template <int width>
__device__ __forceinline__ Raw fetch(const char* data, DType t, int64_t i) {
  Raw out{};
  if constexpr (width == 1) {
    if (t == DType::f64) {
      const auto bits = reinterpret_cast<const uint64_t*>(data)[i];
      out.words[0] = static_cast<uint32_t>(bits);
      out.words[1] = static_cast<uint32_t>(bits >> 32);
    } else {
      out.words[0] =
          t == DType::f32 ? reinterpret_cast<const uint32_t*>(data)[i] : reinterpret_cast<const uint16_t*>(data)[i];
    }
  } else if (t == DType::f32) {
    const auto wide = *reinterpret_cast<const Pack<uint32_t>*>(data + i * 4);
#pragma unroll
    for (int j = 0; j < 4; ++j) out.words[j] = wide.items[j];
  } else {
    const auto narrow = *reinterpret_cast<const uint64_t*>(data + i * 2);
    out.words[0] = static_cast<uint32_t>(narrow);
    out.words[1] = static_cast<uint32_t>(narrow >> 32);
  }
  return out;
}

template <class T, int width>
__device__ __forceinline__ Run<T, width> widen(const Raw& raw, DType t) {
  Run<T, width> out;
#pragma unroll
  for (int j = 0; j < width; ++j) {
    const auto half = static_cast<uint16_t>(raw.words[j / 2] >> (16 * (j % 2)));
    if (t == DType::f32)
      out.at[j] = static_cast<T>(std::bit_cast<float>(raw.words[j]));
    else if (t == DType::bf16)
      out.at[j] = static_cast<T>(static_cast<float>(BFloat16::from_bits(half)));
    else if (t == DType::f16)
      out.at[j] = static_cast<T>(static_cast<float>(Half::from_bits(half)));
    else if constexpr (width == 1)
      out.at[j] = static_cast<T>(std::bit_cast<double>(static_cast<uint64_t>(raw.words[1]) << 32 | raw.words[0]));
  }
  return out;
}
template <class T>
__device__ __forceinline__ uint16_t half_bits(T x, DType t) {
  return t == DType::bf16 ? convert<BFloat16>(x).bits : convert<Half>(x).bits;
}

template <class T, int width>
__device__ __forceinline__ void write(char* data, DType t, int64_t i, const Run<T, width>& x) {
  if constexpr (width == 1) {
    if (t == DType::f64)
      reinterpret_cast<double*>(data)[i] = static_cast<double>(x.at[0]);
    else if (t == DType::f32)
      reinterpret_cast<float*>(data)[i] = static_cast<float>(x.at[0]);
    else
      reinterpret_cast<uint16_t*>(data)[i] = half_bits(x.at[0], t);
  } else if (t == DType::f32) {
    Pack<float> out;
#pragma unroll
    for (int j = 0; j < width; ++j) out.items[j] = static_cast<float>(x.at[j]);
    *reinterpret_cast<Pack<float>*>(data + i * 4) = out;
  } else {
    uint64_t out = 0;
#pragma unroll
    for (int j = 0; j < width; ++j) out |= uint64_t{half_bits(x.at[j], t)} << (16 * j);
    *reinterpret_cast<uint64_t*>(data + i * 2) = out;
  }
}

// Elements of the master that are not what the value was rounded from are the value's, which others have written.
template <class T, int width>
__device__ __forceinline__ void take_written(Run<T, width>& x, const UpdateSlot& s, int64_t i) {
  const Run<T, width> value = widen<T, width>(fetch<width>(s.value, s.value_type, i), s.value_type);
#pragma unroll
  for (int j = 0; j < width; ++j)
    if (half_bits(x.at[j], s.value_type) != half_bits(value.at[j], s.value_type)) x.at[j] = value.at[j];
}

template <class T, int width, int N>
__device__ __forceinline__ Elements<T, width, N> read(const UpdateSlot& s, int64_t i) {
  const Raw x = fetch<width>(s.main, s.main_type, i), dx = fetch<width>(s.grad, s.grad_type, i);
  std::array<Raw, N> states{};
#pragma unroll
  for (int k = 0; k < N; ++k)
    if (s.states[k] != nullptr && !s.fresh) states[k] = fetch<width>(s.states[k], s.state_types[k], i);
  Elements<T, width, N> out{widen<T, width>(x, s.main_type), widen<T, width>(dx, s.grad_type), {}};
#pragma unroll
  for (int k = 0; k < N; ++k) out.states[k] = widen<T, width>(states[k], s.state_types[k]);
  if (s.value_written) take_written(out.x, s, i);
  return out;
}

// Element i takes word i % 4 of the draw's block i / 4.
template <class T, int width>
__device__ __forceinline__ void round(Run<T, width>& x, const UpdateSlot& s, int64_t i) {
  const auto words = s.rounding.block(static_cast<uint64_t>(i / four));
  const auto own = i % four;
#pragma unroll
  for (int j = 0; j < width; ++j) {
    const uint32_t word = width == four ? words[j]
                          : own == 0    ? words[0]
                          : own == 1    ? words[1]
                          : own == 2    ? words[2]
                                        : words[3];
    const auto given = static_cast<float>(x.at[j]);
    x.at[j] = s.value_type == DType::bf16 ? static_cast<T>(static_cast<float>(BFloat16::stochastic(given, word)))
                                          : static_cast<T>(static_cast<float>(Half::stochastic(given, word)));
  }
}

// formula(x, dx, states, rates) changes one element's x and states.
template <class T, int width, int N, class Formula>
__device__ __forceinline__ void update(const UpdateSlot& s, int64_t i, const std::array<T, 2>& rates, T factor,
                                       const Formula& formula) {
  Elements<T, width, N> e = read<T, width, N>(s, i);
#pragma unroll
  for (int j = 0; j < width; ++j) {
    std::array<T*, N> states;
#pragma unroll
    for (int k = 0; k < N; ++k) states[k] = &e.states[k].at[j];
    formula(e.x.at[j], e.dx.at[j] * factor, states, rates);
  }
  if (s.rounds) round(e.x, s, i);
  write(s.main, s.main_type, i, e.x);
  if (s.has_master) write(s.value, s.value_type, i, e.x);
#pragma unroll
  for (int k = 0; k < N; ++k)
    if (s.states[k] != nullptr) write(s.states[k], s.state_types[k], i, e.states[k]);
}

template <class T, int N, class Formula>
__global__ void __launch_bounds__(threads_per_block)
    update_kernel(const __grid_constant__ Table<UpdateSlot> table, Formula formula) {
  const Part part = part_of_block(table);
  const UpdateSlot& s = table.slots[part.slot];
  const T factor = s.factor != nullptr ? static_cast<T>(*s.factor) : T(1);
  const std::array<T, 2> rates{static_cast<T>(s.rates[0]), static_cast<T>(s.rates[1])};
  int64_t packed = part.begin;
  if constexpr (std::is_same_v<T, float>) {
    if (s.aligned) packed += (part.end - part.begin) / four * four;
    for (int64_t i = part.begin + int64_t{threadIdx.x} * four; i < packed; i += int64_t{blockDim.x} * four)
      update<T, four, N>(s, i, rates, factor, formula);
  }
  for (int64_t i = packed + threadIdx.x; i < part.end; i += blockDim.x) update<T, 1, N>(s, i, rates, factor, formula);
}

inline UpdateSlot slot_of(const UpdatePiece& p, const std::array<double, 2>& rates, bool fresh) {
  const auto data = [](const Dense& d) { return static_cast<char*>(d.data); };
  const bool has_master = p.master.data != nullptr;
  const Dense& main = has_master ? p.master : p.value;
  bool aligned = true;
  for (const Dense& d : {p.value, p.grad, p.master, p.states[0], p.states[1], p.states[2]})
    aligned = aligned &&
              (d.data == nullptr ||
               (item_size(d.dtype) <= 4 && reinterpret_cast<uintptr_t>(d.data) % (four * item_size(d.dtype)) == 0));
  return {p.numel,
          data(main),
          data(p.value),
          data(p.grad),
          {data(p.states[0]), data(p.states[1]), data(p.states[2])},
          static_cast<const float*>(p.factor.data),
          p.rounding.value_or(Philox()),
          rates,
          main.dtype,
          p.value.dtype,
          p.grad.dtype,
          {p.states[0].dtype, p.states[1].dtype, p.states[2].dtype},
          has_master,
          has_master && p.value_written,
          p.rounding.has_value() && is_half(p.value.dtype),
          fresh,
          aligned};
}

}  // namespace loom::cuda
#endif
