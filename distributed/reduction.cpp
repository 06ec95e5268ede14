#include <algorithm>
#include <type_traits>

#include <loom/accelerators/accelerator.h>
#include <loom/distributed/reduction.h>

namespace loom {
namespace {

// Integers wrap: the unsigned type says so to the compiler.
template <class T>
struct Wrapping {
  using type = T;
};
template <class T>
  requires std::is_integral_v<T>
struct Wrapping<T> {
  using type = std::make_unsigned_t<T>;
};
template <class T>
using wrapping = typename Wrapping<T>::type;

struct Sum {
  template <class A>
  static A combine(A a, A b) {
    return static_cast<A>(static_cast<wrapping<A>>(a) + static_cast<wrapping<A>>(b));
  }
};
struct Product {
  template <class A>
  static A combine(A a, A b) {
    return static_cast<A>(static_cast<wrapping<A>>(a) * static_cast<wrapping<A>>(b));
  }
};
struct Min {  // b != b: NaN
  template <class A>
  static A combine(A a, A b) {
    return b < a || b != b ? b : a;
  }
};
struct Max {
  template <class A>
  static A combine(A a, A b) {
    return b > a || b != b ? b : a;
  }
};

// Between floats and their 16-bit storage: the processor's kernels know the way.
void convert(void* to, DType to_dtype, const void* from, DType from_dtype, int64_t n) {
  accelerator(Device()).copy(view_over(to, to_dtype, {n}),
                             view_over(const_cast<void*>(from), from_dtype, {n}));  // NOLINT: copy reads it only
}

// n elements as the type that they are added in; in `memory` where that is another one.
template <class T>
const compute_type<T>* widened(const T* in, int64_t n, compute_type<T>* memory) {
  if constexpr (std::is_same_v<T, compute_type<T>>) {
    return in;
  } else {
    convert(memory, dtype_of<compute_type<T>>(), in, dtype_of<T>(), n);
    return memory;
  }
}

// A block's results stay in the first-level cache until all ranks are in; outputs are written after all inputs are
// read.
template <class T, class Op>
void reduce_blocks(int64_t count, std::span<const void* const> inputs, std::span<void* const> outputs, bool mean) {
  using A = compute_type<T>;
  constexpr int64_t block = 1024;
  A total[block], memory[block];
  for (int64_t begin = 0; begin < count; begin += block) {
    const int64_t n = std::min(block, count - begin);
    const A* first = widened(static_cast<const T*>(inputs[0]) + begin, n, total);
    for (size_t r = 1; r < inputs.size(); ++r, first = total) {
      const A* const in = widened(static_cast<const T*>(inputs[r]) + begin, n, memory);
      for (int64_t i = 0; i < n; ++i) total[i] = Op::combine(first[i], in[i]);
    }
    if (first != total) std::copy_n(first, n, total);  // a single rank
    if constexpr (std::is_floating_point_v<A>) {
      const A ranks = static_cast<A>(inputs.size());
      if (mean)
        for (int64_t i = 0; i < n; ++i) total[i] /= ranks;
    }
    for (void* const output : outputs) {
      T* const out = static_cast<T*>(output) + begin;
      if constexpr (std::is_same_v<T, A>)
        std::copy_n(total, n, out);
      else
        convert(out, dtype_of<T>(), total, dtype_of<A>(), n);
    }
  }
}

template <class T>
void reduce_with(ReduceOp op, int64_t count, std::span<const void* const> inputs, std::span<void* const> outputs) {
  switch (op) {
    case ReduceOp::sum:
      return reduce_blocks<T, Sum>(count, inputs, outputs, false);
    case ReduceOp::mean:
      return reduce_blocks<T, Sum>(count, inputs, outputs, true);
    case ReduceOp::min:
      return reduce_blocks<T, Min>(count, inputs, outputs, false);
    case ReduceOp::max:
      return reduce_blocks<T, Max>(count, inputs, outputs, false);
    case ReduceOp::product:
      return reduce_blocks<T, Product>(count, inputs, outputs, false);
  }
}

}  // namespace

void reduce_in_rank_order(ReduceOp op, DType dtype, int64_t count, std::span<const void* const> inputs,
                          std::span<void* const> outputs) {
  if (dtype == DType::boolean) dtype = DType::u8;  // stored as 0 and 1; min and max only
  with_type(dtype, [&]<class T> {
    if constexpr (!std::is_same_v<T, bool>) reduce_with<T>(op, count, inputs, outputs);
  });
}

}  // namespace loom
