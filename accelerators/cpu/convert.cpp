#include <loom/accelerators/cpu/convert.h>

#include <array>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include <loom/accelerators/cpu/every.h>
#include <loom/accelerators/cpu/narrow.h>
#include <loom/accelerators/cpu/shuffle.h>

namespace loom::cpu {

namespace {

// Truncates; numbers out of range give the nearest in it, NaN gives 0.
template <class To, class From>
To truncate(From x) {
  constexpr From low = static_cast<From>(std::numeric_limits<To>::min());
  constexpr From high = static_cast<From>(std::numeric_limits<To>::max());  // may round up, to a power of two
  const bool inside = x > low && x < high;
  const To whole = static_cast<To>(inside ? x : From(0));
  const To outside = x >= high ? std::numeric_limits<To>::max() : x <= low ? std::numeric_limits<To>::min() : To(0);
  return inside ? whole : outside;
}

// Integers wrap; floating numbers go to u8 by way of i32, and wrap there.
template <class To, class From>
To cast(From x) {
  constexpr bool truncates = std::is_integral_v<To> && !std::is_integral_v<From>;
  using Number = compute_type<From>;
  if constexpr (std::is_same_v<To, bool>)
    return static_cast<Number>(x) != Number(0);
  else if constexpr (std::is_same_v<To, Half> || std::is_same_v<To, BFloat16>)
    return To(static_cast<float>(x));
  else if constexpr (truncates && sizeof(To) == 1)
    return static_cast<To>(truncate<int32_t, Number>(x));
  else if constexpr (truncates)
    return truncate<To, Number>(x);
  else
    return static_cast<To>(static_cast<Number>(x));
}

template <class To, class From>
void convert(void* __restrict y_data, const void* __restrict x_data, int64_t n) {
  To* const y = static_cast<To*>(y_data);
  const From* const x = static_cast<const From*>(x_data);
  if constexpr (std::is_same_v<To, From>) {
    std::memcpy(y, x, static_cast<size_t>(n) * sizeof(To));
  } else if constexpr (std::is_same_v<To, BFloat16> && std::is_same_v<From, float>) {
    narrow_run(y, x, n);
  } else {
    for (int64_t i = 0; i < n; ++i) y[i] = cast<To>(x[i]);
  }
}

using Row = std::array<Convert, dtype_count>;

template <class To>
constexpr Row converters_to = {convert<To, double>,  convert<To, float>,   convert<To, Half>,    convert<To, BFloat16>,
                               convert<To, int64_t>, convert<To, int32_t>, convert<To, uint8_t>, convert<To, bool>};
constexpr std::array<Row, dtype_count> converters = {
    converters_to<double>,  converters_to<float>,   converters_to<Half>,    converters_to<BFloat16>,
    converters_to<int64_t>, converters_to<int32_t>, converters_to<uint8_t>, converters_to<bool>};

template <size_t item>
using BitsOf =
    std::conditional_t<item == 1, uint8_t,
                       std::conditional_t<item == 2, uint16_t, std::conditional_t<item == 4, uint32_t, uint64_t>>>;

// What can be had in vectors of elements that stand near each other; how many elements these are.
template <size_t item, int... k>
int64_t gather_near(char* y, const char* x, int64_t stride, int64_t n, std::integer_sequence<int, k...>) {
  int64_t done = 0;
  ((stride == (k + 2) * static_cast<int64_t>(item) ? done = take_every<k + 2, BitsOf<item>>(y, x, n) : 0), ...);
  return done;
}
constexpr int farthest(size_t item) { return item == 8 ? 4 : 8; }  // elements; beyond, one by one is as fast

// memcpy of a constant size is one move, and is right for any type of that size.
template <size_t item>
void gather_items(char* y, const char* x, int64_t stride, int64_t n) {
  constexpr auto step = static_cast<int64_t>(item);
  if (stride == 0) {  // one element again and again, in vectors
    std::array<char, item> element;
    std::memcpy(element.data(), x, item);
    for (int64_t i = 0; i < n; ++i) std::memcpy(y + i * step, element.data(), item);
    return;
  }
  int64_t i = 0;
  if constexpr (item > 1) i = gather_near<item>(y, x, stride, n, std::make_integer_sequence<int, farthest(item) - 1>());
  if (stride == -step) {  // backwards, in vectors
    using Bits = BitsOf<item>;
    constexpr int64_t width = lanes<Bits>;
    for (; i + width <= n; i += width) {
      Vec<Bits> v;
      std::memcpy(&v, x - (i + width - 1) * step, sizeof(v));
      store(y + i * step, reversed(v));
    }
  }
  for (; i < n; ++i) std::memcpy(y + i * step, x + i * stride, item);
}

template <size_t item>
void scatter_items(char* y, int64_t stride, const char* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) std::memcpy(y + i * stride, x + i * static_cast<int64_t>(item), item);
}

}  // namespace

Convert converter(DType to, DType from) { return converters[static_cast<size_t>(to)][static_cast<size_t>(from)]; }

void gather_run(void* y, const char* x, int64_t stride, int64_t n, size_t item) {
  char* const out = static_cast<char*>(y);
  switch (item) {
    case 1:
      return gather_items<1>(out, x, stride, n);
    case 2:
      return gather_items<2>(out, x, stride, n);
    case 4:
      return gather_items<4>(out, x, stride, n);
    default:
      return gather_items<8>(out, x, stride, n);
  }
}

void scatter_run(char* y, int64_t stride, const void* x, int64_t n, size_t item) {
  const char* const in = static_cast<const char*>(x);
  switch (item) {
    case 1:
      return scatter_items<1>(y, stride, in, n);
    case 2:
      return scatter_items<2>(y, stride, in, n);
    case 4:
      return scatter_items<4>(y, stride, in, n);
    default:
      return scatter_items<8>(y, stride, in, n);
  }
}

}  // namespace loom::cpu
