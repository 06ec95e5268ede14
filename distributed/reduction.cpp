#include <algorithm>
#include <bit>
#include <functional>
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

// to[i], too[i] = finish(a[i] op b[i]). Both may be a or b: what a chunk reads, it reads before it writes.
template <class Op, class A, class Finish>
void combine(const A* a, const A* b, A* to, A* too, int64_t n, const Finish& finish) {
  constexpr int64_t chunk = 64 / sizeof(A);
  const int64_t whole = n / chunk * chunk;
  for (int64_t begin = 0; begin < whole; begin += chunk) {
    A part[chunk];
    for (int64_t i = 0; i < chunk; ++i) part[i] = finish(Op::combine(a[begin + i], b[begin + i]));
    std::copy_n(part, chunk, to + begin);
    if (too != to) std::copy_n(part, chunk, too + begin);
  }
  for (int64_t i = whole; i < n; ++i) to[i] = too[i] = finish(Op::combine(a[i], b[i]));
}

// A block's results stay in the first-level cache until all ranks are in; outputs are written after all inputs are
// read. The last rank's values meet them on the way to the outputs, where these are of the type that is added in.
template <class T, class Op, class Finish>
void reduce_blocks(int64_t count, std::span<const void* const> inputs, std::span<void* const> outputs,
                   const Finish& finish) {
  using A = compute_type<T>;
  constexpr int64_t block = 1024;
  const size_t last = inputs.size() - 1;
  const bool direct = std::is_same_v<T, A> && last > 0 && outputs.size() <= 2;
  A total[block], memory[block];
  for (int64_t begin = 0; begin < count; begin += block) {
    const int64_t n = std::min(block, count - begin);
    const auto read = [&](size_t r, A* to) { return widened(static_cast<const T*>(inputs[r]) + begin, n, to); };
    const auto end = [&](size_t output) { return static_cast<T*>(outputs[output]) + begin; };
    const A* first = read(0, total);
    for (size_t r = 1; r < last; ++r, first = total)
      combine<Op>(first, read(r, memory), total, total, n, std::identity());
    if constexpr (std::is_same_v<T, A>) {
      if (direct) {
        combine<Op>(first, read(last, memory), end(0), end(outputs.size() - 1), n, finish);
        continue;
      }
    }
    if (last > 0)
      combine<Op>(first, read(last, memory), total, total, n, finish);
    else
      std::transform(first, first + n, total, finish);
    for (size_t output = 0; output < outputs.size(); ++output) {
      if constexpr (std::is_same_v<T, A>)
        std::copy_n(total, n, end(output));
      else
        convert(end(output), dtype_of<T>(), total, dtype_of<A>(), n);
    }
  }
}

// By a power of two the product with its inverse is the quotient, to the last bit.
template <class T>
void reduce_to_mean(int64_t count, std::span<const void* const> inputs, std::span<void* const> outputs) {
  using A = compute_type<T>;
  if constexpr (!std::is_floating_point_v<A>) {
    reduce_blocks<T, Sum>(count, inputs, outputs, std::identity());
  } else if (const A ranks = static_cast<A>(inputs.size()); std::has_single_bit(inputs.size())) {
    reduce_blocks<T, Sum>(count, inputs, outputs, [part = 1 / ranks](A sum) { return sum * part; });
  } else {
    reduce_blocks<T, Sum>(count, inputs, outputs, [ranks](A sum) { return sum / ranks; });
  }
}

template <class T>
void reduce_with(ReduceOp op, int64_t count, std::span<const void* const> inputs, std::span<void* const> outputs) {
  switch (op) {
    case ReduceOp::sum:
      return reduce_blocks<T, Sum>(count, inputs, outputs, std::identity());
    case ReduceOp::mean:
      return reduce_to_mean<T>(count, inputs, outputs);
    case ReduceOp::min:
      return reduce_blocks<T, Min>(count, inputs, outputs, std::identity());
    case ReduceOp::max:
      return reduce_blocks<T, Max>(count, inputs, outputs, std::identity());
    case ReduceOp::product:
      return reduce_blocks<T, Product>(count, inputs, outputs, std::identity());
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
