#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include <loom/accelerators/cpu/convert.h>
#include <loom/accelerators/cpu/cpu.h>
#include <loom/accelerators/cpu/staged.h>
#include <loom/accelerators/cpu/stream_rows.h>
#include <loom/accelerators/cpu/transposed_copy.h>

namespace loom {

namespace {

using cpu::block;
using cpu::grain;

// The dimension along which x is dense while y is dense along the inner one; -1 when this is no transposition.
int transposed_dimension(const cpu::Loop<2>& loop, size_t y_item, size_t x_item) {
  if (!loop.dense(0, y_item) || loop.dense(1, x_item) || loop.inner_extent() < 2) return -1;
  for (int i = 0; i < loop.rank() - 1; ++i)
    if (loop.stride(1, i) == static_cast<int64_t>(x_item) && loop.extent(i) >= 4) return i;
  return -1;
}

// Runs of a few words, `x_stride` and `y_stride` bytes apart: each is a move or two.
using MoveRuns = void (*)(char*, int64_t, const char*, int64_t, int64_t);
template <size_t bytes>
void move_runs(char* y, int64_t y_stride, const char* x, int64_t x_stride, int64_t n) {
  for (int64_t i = 0; i < n; ++i) std::memcpy(y + i * y_stride, x + i * x_stride, bytes);
}
constexpr int64_t word = 4, longest_move = 64;
template <size_t... k>
constexpr std::array<MoveRuns, sizeof...(k)> movers_of(std::index_sequence<k...>) {
  return {move_runs<(k + 1) * word>...};
}
constexpr auto movers = movers_of(std::make_index_sequence<longest_move / word>());

bool has_short_runs(const cpu::Loop<2>& loop, int64_t item) {
  const int64_t bytes = loop.inner_extent() * item;
  return loop.rank() >= 2 && loop.dense(0, static_cast<size_t>(item)) && loop.dense(1, static_cast<size_t>(item)) &&
         bytes <= longest_move && bytes % word == 0;
}

void copy_short_runs(const cpu::Loop<2>& loop, int64_t item) {
  const int64_t inner = loop.inner_extent(), runs = loop.numel() / inner;
  const int outside = loop.rank() - 2;
  const MoveRuns move = movers[static_cast<size_t>(inner * item / word - 1)];
  parallel_for(runs, std::max<int64_t>(1, grain / inner), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {
      const int64_t n = std::min(loop.extent(outside) - i % loop.extent(outside), end - i);
      const auto at = loop.at(i * inner);
      move(at[0], loop.stride(0, outside), at[1], loop.stride(1, outside), n);
      i += n;
    }
  });
}

void copy_dense(void* y, const void* x, int64_t n, size_t item) {
  parallel_for(n, 4 * grain, [&](int64_t begin, int64_t end) {
    std::memcpy(static_cast<char*>(y) + static_cast<size_t>(begin) * item,
                static_cast<const char*>(x) + static_cast<size_t>(begin) * item,
                static_cast<size_t>(end - begin) * item);
  });
}

// Calls f.operator()<Bits>() with the unsigned integer of this size.
template <class F>
decltype(auto) with_bits(size_t item, const F& f) {
  switch (item) {
    case 1:
      return f.template operator()<uint8_t>();
    case 2:
      return f.template operator()<uint16_t>();
    case 4:
      return f.template operator()<uint32_t>();
    default:
      return f.template operator()<uint64_t>();
  }
}

void copy_transposed(const cpu::Loop<2>& loop, int across, const View& y, const View& x) {
  const cpu::Convert convert = y.dtype == x.dtype ? nullptr : cpu::converter(y.dtype, x.dtype);
  const auto y_item = static_cast<int64_t>(item_size(y.dtype));
  // Lines that are written one here and one there are the first that the caches lose.
  const bool past = loop.numel() * y_item >= cpu::stream_bytes / 2;
  with_bits(item_size(x.dtype),
            [&]<class Bits>() { cpu::TransposedCopy<Bits>(loop, across, y_item, convert, past).run(); });
}

// Fills y with one element of its dtype.
void fill_with(const View& y, const void* value) {
  const View source{const_cast<void*>(value), y.dtype, y.device, y.shape,
                    Dims::filled(y.rank(), 0)};  // NOLINT: read only
  cpu::staged<2>({&y, &source}, {y.dtype, y.dtype}, grain, [&](void* out, const auto& in, int64_t n) {
    std::memcpy(out, in[0], static_cast<size_t>(n) * item_size(y.dtype));
  });
}

// y[i] = start + i * step, computed in T.
template <class T>
void count_up(const View& y, DType compute, T start, T step) {
  const int64_t stride = y.strides[0] * static_cast<int64_t>(item_size(y.dtype));
  parallel_for(y.numel(), grain, [&](int64_t begin, int64_t end) {
    cpu::Writer writer(y.dtype, compute);
    for (int64_t first = begin; first < end; first += block) {
      const int64_t n = std::min(block, end - first);
      char* const at = y.as<char>() + first * stride;
      T* const run = static_cast<T*>(writer.target(at, stride));
      for (int64_t i = 0; i < n; ++i) run[i] = start + static_cast<T>(first + i) * step;
      writer.commit(at, stride, n);
    }
  });
}

}  // namespace

void Cpu::copy(const View& y, const View& x) {
  const cpu::Loop<2> loop({&y, &x});
  if (loop.numel() == 0) return;
  const size_t y_item = item_size(y.dtype), x_item = item_size(x.dtype);
  const bool large = loop.numel() * static_cast<int64_t>(y_item) >= cpu::stream_bytes;
  if (large && y.dtype == x.dtype && with_bits(y_item, [&]<class Bits>() { return cpu::stream_rows<Bits>(y, x); }))
    return;
  if (y.dtype == x.dtype && loop.rank() == 1 && loop.dense(0, y_item) && loop.dense(1, x_item))
    return copy_dense(loop.data()[0], loop.data()[1], loop.numel(), y_item);
  if (const int across = transposed_dimension(loop, y_item, x_item); across >= 0)
    return copy_transposed(loop, across, y, x);
  if (y.dtype == x.dtype && has_short_runs(loop, static_cast<int64_t>(y_item)))
    return copy_short_runs(loop, static_cast<int64_t>(y_item));
  cpu::staged<2>({&y, &x}, {y.dtype, y.dtype}, grain, [&](void* out, const auto& in, int64_t n) {
    std::memcpy(out, in[0], static_cast<size_t>(n) * y_item);
  });
}

void Cpu::fill(const View& y, double value) {
  alignas(8) char element[8];
  cpu::store_as(y.dtype, element, f64, &value);
  fill_with(y, element);
}

void Cpu::fill(const View& y, int64_t value) {
  alignas(8) char element[8];
  cpu::store_as(y.dtype, element, i64, &value);
  fill_with(y, element);
}

// Whole numbers are counted exactly, beyond what a double can hold.
void Cpu::arange(const View& y, double start, double step) {
  constexpr double exact = 9007199254740992.0;  // 2^53
  const auto whole = [](double v) { return std::abs(v) <= exact && v == std::nearbyint(v); };
  if (is_integral(y.dtype) && whole(start) && whole(step))
    return count_up<int64_t>(y, i64, static_cast<int64_t>(start), static_cast<int64_t>(step));
  count_up<double>(y, f64, start, step);
}

}  // namespace loom
