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
  const int64_t* count;         // the step's number, where the device has it; or null, and:
  int64_t step;
  DType main_type, value_type, grad_type;
  std::array<DType, 3> state_types;
  bool has_master, value_written, rounds;
  bool fresh;    // states start at 0, whatever lies there
  bool aligned;  // all arrays, to four elements
};

// What a step's numbers make of the formula, where they are in the device's memory.
struct Told {
  std::array<double, 2> rates;
  bool fresh;
};
template <class Formula>
struct Prepared {
  Formula formula;
  bool skip;
  std::array<Told, table_length<UpdateSlot>> slots;
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

// What is known when a kernel is compiled, for runs of four: whether the parameter (main) and the gradient have 16
// bits. States have 32 then, and the value beside a master has 16. Of an element by itself nothing is known.
template <bool main_has_16, bool grad_has_16>
struct Widths {
  static constexpr bool main = main_has_16, grad = grad_has_16;
};

// Elements as they lie in memory.
struct Raw {
  uint32_t words[4];
};
template <int width, bool has_16>
__device__ __forceinline__ Raw fetch(const char* data, DType t, int64_t i) {
  if constexpr (width == four && has_16) {
    struct alignas(8) Narrow {
      uint32_t items[2];
    };
    const auto narrow = *reinterpret_cast<const Narrow*>(data + i * 2);
    return {narrow.items[0], narrow.items[1]};
  } else if constexpr (width == four) {
    const auto wide = *reinterpret_cast<const Pack<uint32_t>*>(data + i * 4);
    return {wide.items[0], wide.items[1], wide.items[2], wide.items[3]};
  } else if (t == DType::f64) {
    const auto bits = reinterpret_cast<const uint64_t*>(data)[i];
    return {static_cast<uint32_t>(bits), static_cast<uint32_t>(bits >> 32)};
  } else {
    return {t == DType::f32 ? reinterpret_cast<const uint32_t*>(data)[i] : reinterpret_cast<const uint16_t*>(data)[i]};
  }
}

template <class T, class Number>
__device__ __forceinline__ T widen_half(const Raw& raw, int j) {
  return static_cast<T>(
      static_cast<float>(Number::from_bits(static_cast<uint16_t>(raw.words[j / 2] >> (16 * (j % 2))))));
}
template <class T, int width, bool has_16>
__device__ __forceinline__ Run<T, width> widen(const Raw& raw, DType t) {
  Run<T, width> out;
  if (width == four ? !has_16 : t == DType::f32) {
#pragma unroll
    for (int j = 0; j < width; ++j) out.at[j] = static_cast<T>(std::bit_cast<float>(raw.words[j]));
  } else if (t == DType::bf16) {
#pragma unroll
    for (int j = 0; j < width; ++j) out.at[j] = widen_half<T, BFloat16>(raw, j);
  } else if (width == four || t == DType::f16) {
#pragma unroll
    for (int j = 0; j < width; ++j) out.at[j] = widen_half<T, Half>(raw, j);
  } else {
    out.at[0] = static_cast<T>(std::bit_cast<double>(static_cast<uint64_t>(raw.words[1]) << 32 | raw.words[0]));
  }
  return out;
}

template <class Number, class T, int width>
__device__ __forceinline__ uint64_t half_bits(const Run<T, width>& x) {
  uint64_t out = 0;
#pragma unroll
  for (int j = 0; j < width; ++j) out |= uint64_t{convert<Number>(x.at[j]).bits} << (16 * j);
  return out;
}
template <class T, int width>
__device__ __forceinline__ uint64_t half_bits(const Run<T, width>& x, DType t) {
  return t == DType::bf16 ? half_bits<BFloat16>(x) : half_bits<Half>(x);
}

template <bool has_16, class T, int width>
__device__ __forceinline__ void write(char* data, DType t, int64_t i, const Run<T, width>& x) {
  if constexpr (width == four && has_16) {
    *reinterpret_cast<uint64_t*>(data + i * 2) = half_bits(x, t);
  } else if constexpr (width == four) {
    Pack<float> out;
#pragma unroll
    for (int j = 0; j < width; ++j) out.items[j] = static_cast<float>(x.at[j]);
    *reinterpret_cast<Pack<float>*>(data + i * 4) = out;
  } else if (t == DType::f64) {
    reinterpret_cast<double*>(data)[i] = static_cast<double>(x.at[0]);
  } else if (t == DType::f32) {
    reinterpret_cast<float*>(data)[i] = static_cast<float>(x.at[0]);
  } else {
    reinterpret_cast<uint16_t*>(data)[i] = static_cast<uint16_t>(half_bits(x, t));
  }
}

// Elements of the master that are not what the value was rounded from are the value's, which others have written.
template <class T, int width>
__device__ __forceinline__ void take_written(Run<T, width>& x, const UpdateSlot& s, int64_t i) {
  const Run<T, width> value = widen<T, width, true>(fetch<width, true>(s.value, s.value_type, i), s.value_type);
  const uint64_t differ = half_bits(x, s.value_type) ^ half_bits(value, s.value_type);
#pragma unroll
  for (int j = 0; j < width; ++j)
    if ((differ >> (16 * j) & 0xffffu) != 0) x.at[j] = value.at[j];
}

template <class Widths, class T, int width, int N>
__device__ __forceinline__ Elements<T, width, N> read(const UpdateSlot& s, int64_t i, bool fresh) {
  const Raw x = fetch<width, Widths::main>(s.main, s.main_type, i);
  const Raw dx = fetch<width, Widths::grad>(s.grad, s.grad_type, i);
  std::array<Raw, N> states{};
#pragma unroll
  for (int k = 0; k < N; ++k)
    if (s.states[k] != nullptr && !fresh) states[k] = fetch<width, false>(s.states[k], s.state_types[k], i);
  Elements<T, width, N> out{
      widen<T, width, Widths::main>(x, s.main_type), widen<T, width, Widths::grad>(dx, s.grad_type), {}};
#pragma unroll
  for (int k = 0; k < N; ++k) out.states[k] = widen<T, width, false>(states[k], s.state_types[k]);
  if (s.value_written) take_written(out.x, s, i);
  return out;
}

// Element i takes word i % 4 of the draw's block i / 4.
template <class T, int width>
__device__ __forceinline__ void round(Run<T, width>& x, const UpdateSlot& s, int64_t i) {
  auto words = s.rounding.resolved().block(static_cast<uint64_t>(i / four));
  const auto own = i % four;
  if (width == 1) words[0] = own == 0 ? words[0] : own == 1 ? words[1] : own == 2 ? words[2] : words[3];
#pragma unroll
  for (int j = 0; j < width; ++j) {
    const auto given = static_cast<float>(x.at[j]);
    x.at[j] = s.value_type == DType::bf16 ? static_cast<T>(static_cast<float>(BFloat16::stochastic(given, words[j])))
                                          : static_cast<T>(static_cast<float>(Half::stochastic(given, words[j])));
  }
}

// A step that is skipped takes over what others have written all the same: the host counts it as done.
template <class T>
__device__ __forceinline__ void take_written(const UpdateSlot& s, const Part& part) {
  for (int64_t i = part.begin + threadIdx.x; i < part.end; i += blockDim.x) {
    Run<T, 1> x = widen<T, 1, false>(fetch<1, false>(s.main, s.main_type, i), s.main_type);
    take_written(x, s, i);
    write<false>(s.main, s.main_type, i, x);
  }
}

// formula(x, dx, states, rates) changes one element's x and states.
template <class Widths, int width, int N, class T, class Formula>
__device__ __forceinline__ void update(const UpdateSlot& s, int64_t i, const std::array<T, 2>& rates, T factor,
                                       bool fresh, const Formula& formula) {
  auto e = read<Widths, T, width, N>(s, i, fresh);
#pragma unroll
  for (int j = 0; j < width; ++j) {
    std::array<T*, N> states;
#pragma unroll
    for (int k = 0; k < N; ++k) states[k] = &e.states[k].at[j];
    formula(e.x.at[j], e.dx.at[j] * factor, states, rates);
  }
  if (s.rounds) round(e.x, s, i);
  write<Widths::main>(s.main, s.main_type, i, e.x);
  if (s.has_master) write<true>(s.value, s.value_type, i, e.x);
#pragma unroll
  for (int k = 0; k < N; ++k)
    if (s.states[k] != nullptr) write<false>(s.states[k], s.state_types[k], i, e.states[k]);
}

template <class Widths, class T, int N, class Formula>
__global__ void __launch_bounds__(threads_per_block, 3)
    update_kernel(const __grid_constant__ Table<UpdateSlot> table, const __grid_constant__ Formula given,
                  const Prepared<Formula>* prepared) {
  const Part part = part_of_block(table);
  const UpdateSlot& s = table.slots[part.slot];
  if (prepared != nullptr && prepared->skip) {
    if (s.value_written) take_written<T>(s, part);
    return;
  }
  const T factor = s.factor != nullptr ? static_cast<T>(*s.factor) : T(1);
  const std::array<double, 2>& wide = prepared != nullptr ? prepared->slots[part.slot].rates : s.rates;
  const std::array<T, 2> rates{static_cast<T>(wide[0]), static_cast<T>(wide[1])};
  const bool fresh = prepared != nullptr ? prepared->slots[part.slot].fresh : s.fresh;
  const Formula formula = prepared != nullptr ? prepared->formula : given;
  int64_t packed = part.begin;
  if constexpr (std::is_same_v<T, float>) {
    if (s.aligned) packed += (part.end - part.begin) / four * four;
    for (int64_t i = part.begin + int64_t{threadIdx.x} * four; i < packed; i += int64_t{blockDim.x} * four)
      update<Widths, four, N>(s, i, rates, factor, fresh, formula);
  }
  for (int64_t i = packed + threadIdx.x; i < part.end; i += blockDim.x)
    update<Widths, 1, N>(s, i, rates, factor, fresh, formula);
}

// maker: the step's numbers, and what they make (optimizer.cu).
template <class Maker>
__global__ void __launch_bounds__(table_length<UpdateSlot>)
    prepare_kernel(const __grid_constant__ Table<UpdateSlot> table, Maker maker, const double* options,
                   const float* skip, Prepared<typename Maker::Formula>* out) {
  if (options != nullptr) maker.take(options);
  const auto i = static_cast<int>(threadIdx.x);
  if (i == 0) {
    out->formula = maker.formula();
    out->skip = skip != nullptr && *skip != 0;
  }
  if (i >= table.count) return;
  const UpdateSlot& s = table.slots[i];
  out->slots[i] = maker.told(s.count != nullptr ? *s.count : s.step);
}

inline UpdateSlot slot_of(const UpdatePiece& p, const Told& told) {
  const auto data = [](const Dense& d) { return static_cast<char*>(d.data); };
  const bool has_master = p.master.data != nullptr;
  const Dense& main = has_master ? p.master : p.value;
  bool aligned = (!has_master || is_half(p.value.dtype)) && main.dtype != f64 && p.grad.dtype != f64;
  for (const Dense& d : p.states) aligned = aligned && (d.data == nullptr || d.dtype == f32);
  for (const Dense& d : {p.value, p.grad, p.master, p.states[0], p.states[1], p.states[2]})
    aligned = aligned && reinterpret_cast<uintptr_t>(d.data) % (four * item_size(d.dtype)) == 0;
  return {p.numel,
          data(main),
          data(p.value),
          data(p.grad),
          {data(p.states[0]), data(p.states[1]), data(p.states[2])},
          static_cast<const float*>(p.factor.data),
          p.rounding.value_or(Philox()),
          told.rates,
          p.count,
          p.step,
          main.dtype,
          p.value.dtype,
          p.grad.dtype,
          {p.states[0].dtype, p.states[1].dtype, p.states[2].dtype},
          has_master,
          has_master && p.value_written && is_half(p.value.dtype),
          p.rounding.has_value() && is_half(p.value.dtype),
          told.fresh,
          aligned};
}

}  // namespace loom::cuda
#endif
