// Positions of what is not zero: counted first, so that the list is made as long as it has to be, then listed, both in
// pieces that threads share.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <numeric>
#include <span>
#include <vector>

#include <loom/accelerators/threads.h>
#include <loom/tensor/raw/operand.h>

namespace loom::raw {

namespace {

constexpr int64_t piece = 65536, together = 8;  // elements of a piece; those that are looked at as one number

// For every byte the numbers of its set bits, lowest first; what follows them means nothing.
constexpr auto places_of = [] {
  std::array<std::array<uint8_t, together>, 256> table{};
  for (unsigned bits = 0; bits < 256; ++bits)
    for (uint8_t bit = 0, at = 0; bit < together; ++bit)
      if ((bits >> bit & 1) != 0) table[bits][at++] = bit;
  return table;
}();

uint64_t eight_at(const bool* set) {
  uint64_t eight;
  std::memcpy(&eight, set, sizeof(eight));
  return eight;
}

int64_t count_set(const bool* set, int64_t n) {
  constexpr uint64_t odd = 0x00ff00ff00ff00ff;
  int64_t count = 0, i = 0;
  while (i + together <= n) {
    uint64_t sums = 0;  // of each byte's position; 255 terms fit
    const int64_t end = std::min(n, i + 255 * together);
    for (; i + together <= end; i += together) sums += eight_at(set + i);
    count += static_cast<int64_t>(((sums & odd) + (sums >> 8 & odd)) * 0x0001000100010001 >> 48);
  }
  return count + std::count(set + i, set + n, true);
}

// Bit k is byte k's.
uint64_t bits_of(uint64_t eight) { return eight * 0x0102040810204080 >> 56; }

// Writes first + i for each set[i] to [out, end), until it is full, and returns where it stopped. Written whether set
// or not: a branch on data that nobody can foresee costs more.
int64_t* list_many(int64_t* out, const int64_t* end, const bool* set, int64_t n, int64_t first) {
  int64_t i = 0;
  for (; i + together <= n && end - out >= together; i += together) {
    const uint64_t eight = eight_at(set + i);
    const auto& places = places_of[bits_of(eight)];
    for (int64_t k = 0; k < together; ++k) out[k] = first + i + places[k];
    out += eight * 0x0101010101010101 >> 56;  // the sum of its bytes
  }
  for (; i < n && out != end; ++i) {
    *out = first + i;
    out += set[i];
  }
  return out;
}

// The same where few are set: only these cost anything.
int64_t* list_few(int64_t* out, const bool* set, int64_t n, int64_t first) {
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    uint64_t bits = 0;
    for (int64_t k = 0; k < 64; k += together) bits |= bits_of(eight_at(set + i + k)) << k;
    for (; bits != 0; bits &= bits - 1) *out++ = first + i + std::countr_zero(bits);
  }
  for (; i < n; ++i)
    if (set[i]) *out++ = first + i;
  return out;
}

// The same as coordinates within `shape`, row by row of it.
void list_coordinates(int64_t* out, const bool* set, int64_t n, int64_t first, const Dims& shape, bool few) {
  constexpr int64_t block = 512;
  std::array<int64_t, block> places;
  const int last = shape.size() - 1;
  const int64_t rank = shape.size(), inner = shape[last];
  Dims at = Dims::filled(shape.size(), 0);
  int64_t rest = first / inner, row = first - first % inner;  // where the row of `at` begins
  for (int d = last - 1; d >= 0; --d) {
    at[d] = rest % shape[d];
    rest /= shape[d];
  }
  for (int64_t i = 0; i < n; i += block) {
    const int64_t m = std::min(block, n - i);
    const int64_t* const end = few ? list_few(places.data(), set + i, m, first + i)
                                   : list_many(places.data(), places.data() + block, set + i, m, first + i);
    for (const int64_t* place = places.data(); place != end;) {
      for (; *place - row >= inner; row += inner)
        for (int d = last - 1; d >= 0 && ++at[d] == shape[d]; --d) at[d] = 0;
      const int64_t count = std::lower_bound(place, end, row + inner) - place;
      for (int d = 0; d < last; ++d)
        for (int64_t k = 0, c = at[d]; k < count; ++k) out[k * rank + d] = c;
      for (int64_t k = 0; k < count; ++k) out[k * rank + last] = place[k] - row;
      place += count;
      out += count * rank;
    }
  }
}

}  // namespace

// How many there are is known only after looking, so this is done on the host.
Tensor nonzero(const Tensor& x) {
  const Tensor mask = contiguous(to_device(cast(x, DType::boolean), Device()));
  const std::span<const bool> set = mask.span<bool>();
  const int64_t n = x.numel(), pieces = (n + piece - 1) / piece, rank = x.dim();
  const auto each_piece = [&](const auto& f) {
    parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) f(p, set.data() + p * piece, std::min(piece, n - p * piece));
    });
  };
  std::vector<int64_t> starts(static_cast<size_t>(pieces) + 1, 0);  // in the list
  each_piece([&](int64_t p, const bool* part, int64_t length) { starts[p + 1] = count_set(part, length); });
  std::partial_sum(starts.begin(), starts.end(), starts.begin());
  Tensor positions = uninitialized("nonzero", {starts.back(), rank}, DType::i64, Device());
  int64_t* const out = positions.numel() > 0 ? positions.span<int64_t>().data() : nullptr;
  each_piece([&](int64_t p, const bool* part, int64_t length) {
    const int64_t count = starts[p + 1] - starts[p];
    if (count == 0 || rank == 0) return;
    int64_t* const start = out + starts[p] * rank;
    const bool few = count * 8 < length;
    if (rank > 1)
      list_coordinates(start, part, length, p * piece, x.shape(), few);
    else if (few)
      list_few(start, part, length, p * piece);
    else
      list_many(start, start + count, part, length, p * piece);
  });
  return to_device(positions, x.device());
}

}  // namespace loom::raw
