// Sorting along one dimension. Elements become unsigned keys whose order is the wanted one; equal keys go by position,
// which makes any algorithm stable.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <vector>

#include <loom/accelerators/cpu/convert.h>
#include <loom/accelerators/cpu/cpu.h>
#include <loom/accelerators/cpu/radix_sort.h>

namespace loom {

namespace {

// Order of keys = order of numbers; -0 equals 0, NaN comes after infinity.
uint32_t key_of(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x + 0.0f), key = bits ^ (-(bits >> 31) | 0x80000000u);
  return x != x ? std::numeric_limits<uint32_t>::max() : key;
}
uint64_t key_of(double x) {
  const uint64_t bits = std::bit_cast<uint64_t>(x + 0.0), key = bits ^ (-(bits >> 63) | (uint64_t{1} << 63));
  return x != x ? std::numeric_limits<uint64_t>::max() : key;
}
uint32_t key_of(int32_t x) { return static_cast<uint32_t>(x) ^ 0x80000000u; }
uint64_t key_of(int64_t x) { return static_cast<uint64_t>(x) ^ (uint64_t{1} << 63); }

// Key and position in one word where both fit in 32 bits.
struct Narrow {
  uint64_t word;
  Narrow() = default;
  Narrow(uint32_t key, int64_t index) : word(uint64_t{key} << 32 | static_cast<uint64_t>(index)) {}
  int64_t index() const { return static_cast<int64_t>(word & 0xffffffffu); }
  bool operator<(const Narrow& other) const { return word < other.word; }
};
struct Wide {
  uint64_t key;
  int64_t position;
  Wide() = default;
  Wide(uint64_t k, int64_t index) : key(k), position(index) {}
  int64_t index() const { return position; }
  bool operator<(const Wide& other) const { return key != other.key ? key < other.key : position < other.position; }
};

template <class Entry>
void sort_first(std::vector<Entry>& entries, int64_t k) {
  const auto middle = entries.begin() + k;
  if (k * 16 < static_cast<int64_t>(entries.size())) {
    std::partial_sort(entries.begin(), middle, entries.end());
    return;
  }
  if (middle != entries.end()) std::nth_element(entries.begin(), middle, entries.end());
  std::sort(entries.begin(), middle);
}

// The first k of a line of n by comparing entries: for few of many, and for short lines.
template <class T, class Entry>
class Comparing {
 public:
  explicit Comparing(int64_t n) : entries_(static_cast<size_t>(n)) {}
  void put(int64_t first, const T* run, int64_t n, bool descending) {
    for (int64_t j = 0; j < n; ++j) {
      const auto key = key_of(run[j]);
      entries_[static_cast<size_t>(first + j)] = Entry(descending ? ~key : key, first + j);
    }
  }
  void sort(int64_t k) { sort_first(entries_, k); }
  int64_t position(int64_t i) const { return entries_[static_cast<size_t>(i)].index(); }

 private:
  std::vector<Entry> entries_;
};

// All of a line by the bits of its keys.
template <class T>
class ByBits {
 public:
  explicit ByBits(int64_t n) : n_(n), keys_(n), radix_(n) {}
  void put(int64_t first, const T* run, int64_t n, bool descending) {
    Key* const keys = keys_.data() + first;
    const Key flip = descending ? ~Key{0} : Key{0};
    for (int64_t j = 0; j < n; ++j) keys[j] = key_of(run[j]) ^ flip;
  }
  void sort(int64_t) { order_ = radix_(keys_.data(), n_); }
  int64_t position(int64_t i) const { return radix_.position(order_[i]); }

 private:
  using Key = decltype(key_of(T{}));
  int64_t n_;
  cpu::Scratch<Key> keys_;
  cpu::RadixSort<Key> radix_;
  const uint64_t* order_ = nullptr;
};

// T: the type that keys are made from; Line: how a line is sorted.
template <class T, class Line>
class Sort {
 public:
  Sort(const View& values, const View& index, const View& x, int dim, bool descending)
      : values_(values), index_(index), x_(x), dim_(dim), descending_(descending) {}

  void run() const {
    View starts[] = {x_, values_, index_};
    for (View& v : starts) {
      v.shape.erase(dim_);
      v.strides.erase(dim_);
    }
    const cpu::Loop<3> loop({&starts[0], &starts[1], &starts[2]});
    const int64_t length = x_.shape[dim_],
                  lines_per_part = std::max<int64_t>(1, cpu::grain / 16 / std::max<int64_t>(length, 1));
    parallel_for(loop.numel(), lines_per_part, [&](int64_t begin, int64_t end) {
      Line sorted(length);
      cpu::Reader read(x_.dtype, dtype_of<T>());
      loop.walk(begin, end, [&](const auto& p, int64_t lines) {
        for (int64_t i = 0; i < lines; ++i) {
          const char* const line = p[0] + i * loop.inner_stride(0);
          fill(sorted, read, line);
          sorted.sort(values_.shape[dim_]);
          write(sorted, line, p[1] + i * loop.inner_stride(1), p[2] + i * loop.inner_stride(2));
        }
      });
    });
  }

 private:
  int64_t stride(const View& v) const { return v.strides[dim_] * static_cast<int64_t>(item_size(v.dtype)); }

  void fill(Line& sorted, cpu::Reader& read, const char* line) const {
    const int64_t length = x_.shape[dim_], step = stride(x_);
    for (int64_t i = 0; i < length; i += cpu::block) {
      const int64_t n = std::min(cpu::block, length - i);
      sorted.put(i, static_cast<const T*>(read(line + i * step, step, n)), n, descending_);
    }
  }

  // The elements themselves, not their keys: NaN payloads and the sign of zero are kept.
  void write(const Line& sorted, const char* line, char* values, char* index) const {
    const int64_t k = values_.shape[dim_];
    for (int64_t i = 0; i < k; ++i) *reinterpret_cast<int64_t*>(index + i * stride(index_)) = sorted.position(i);
    with_type(x_.dtype, [&]<class S> {
      for (int64_t i = 0; i < k; ++i)
        std::memcpy(values + i * stride(values_), line + sorted.position(i) * stride(x_), sizeof(S));
    });
  }

  const View &values_, &index_, &x_;
  int dim_;
  bool descending_;
};

// By bits: whole lines that are worth the counting, whose positions fit in 32 bits.
template <class T>
void sort_lines(const View& values, const View& index, const View& x, int dim, bool descending) {
  constexpr int64_t positions = int64_t{1} << 32, shortest = 64;
  const int64_t n = x.shape[dim], k = values.shape[dim];
  const auto run = [&]<class Line> { Sort<T, Line>(values, index, x, dim, descending).run(); };
  if (n >= shortest && n < positions && k * 16 >= n)
    run.template operator()<ByBits<T>>();
  else if (sizeof(T) == 4 && n < positions)
    run.template operator()<Comparing<T, Narrow>>();
  else
    run.template operator()<Comparing<T, Wide>>();
}

}  // namespace

void Cpu::sort(const View& values, const View& index, const View& x, int dim, bool descending) {
  if (x.numel() == 0) return;
  if (x.dtype == f64)
    sort_lines<double>(values, index, x, dim, descending);
  else if (x.dtype == i64)
    sort_lines<int64_t>(values, index, x, dim, descending);
  else if (is_integral(x.dtype))
    sort_lines<int32_t>(values, index, x, dim, descending);
  else
    sort_lines<float>(values, index, x, dim, descending);
}

}  // namespace loom
