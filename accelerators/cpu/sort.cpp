// Sorting along one dimension. Elements become unsigned keys whose order is the wanted one; equal keys go by position,
// which makes any algorithm stable.
#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <vector>

#include <loom/accelerators/cpu/convert.h>
#include <loom/accelerators/cpu/cpu.h>

namespace loom {

namespace {

// Order of keys = order of numbers; -0 equals 0, NaN comes after infinity.
uint32_t key_of(float x) {
  if (x != x) return std::numeric_limits<uint32_t>::max();
  const uint32_t bits = std::bit_cast<uint32_t>(x + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
uint64_t key_of(double x) {
  if (x != x) return std::numeric_limits<uint64_t>::max();
  const uint64_t bits = std::bit_cast<uint64_t>(x + 0.0);
  return bits >> 63 ? ~bits : bits | (uint64_t{1} << 63);
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

// Stable, 8 bits of the key at a time from the low end; bytes that all keys share cost no pass.
void radix_sort(std::vector<Narrow>& entries) {
  std::vector<Narrow> other(entries.size());
  for (int shift = 32; shift < 64; shift += 8) {
    std::array<size_t, 257> start{};
    for (const Narrow& e : entries) ++start[(e.word >> shift & 255) + 1];
    if (std::find(start.begin(), start.end(), entries.size()) != start.end()) continue;
    for (size_t i = 1; i < start.size(); ++i) start[i] += start[i - 1];
    for (const Narrow& e : entries) other[start[e.word >> shift & 255]++] = e;
    entries.swap(other);
  }
}

template <class Entry>
void sort_first(std::vector<Entry>& entries, int64_t k) {
  if constexpr (std::is_same_v<Entry, Narrow>) {
    if (k * 16 >= static_cast<int64_t>(entries.size()) && entries.size() >= 1024) return radix_sort(entries);
  }
  const auto middle = entries.begin() + k;
  if (k * 16 < static_cast<int64_t>(entries.size())) {
    std::partial_sort(entries.begin(), middle, entries.end());
    return;
  }
  if (middle != entries.end()) std::nth_element(entries.begin(), middle, entries.end());
  std::sort(entries.begin(), middle);
}

// T: the type that keys are made from; Entry: what is sorted.
template <class T, class Entry>
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
      std::vector<Entry> entries(static_cast<size_t>(length));
      cpu::Reader read(x_.dtype, dtype_of<T>());
      loop.walk(begin, end, [&](const auto& p, int64_t lines) {
        for (int64_t i = 0; i < lines; ++i) {
          const char* const line = p[0] + i * loop.inner_stride(0);
          make_entries(entries, read, line);
          sort_first(entries, values_.shape[dim_]);
          write(entries, line, p[1] + i * loop.inner_stride(1), p[2] + i * loop.inner_stride(2));
        }
      });
    });
  }

 private:
  int64_t stride(const View& v) const { return v.strides[dim_] * static_cast<int64_t>(item_size(v.dtype)); }

  void make_entries(std::vector<Entry>& entries, cpu::Reader& read, const char* line) const {
    const int64_t length = x_.shape[dim_], step = stride(x_);
    for (int64_t i = 0; i < length; i += cpu::block) {
      const int64_t n = std::min(cpu::block, length - i);
      const T* const run = static_cast<const T*>(read(line + i * step, step, n));
      for (int64_t j = 0; j < n; ++j) {
        const auto key = key_of(run[j]);
        entries[static_cast<size_t>(i + j)] = Entry(descending_ ? ~key : key, i + j);
      }
    }
  }

  // The elements themselves, not their keys: NaN payloads and the sign of zero are kept.
  void write(const std::vector<Entry>& entries, const char* line, char* values, char* index) const {
    const int64_t k = values_.shape[dim_];
    const size_t item = item_size(x_.dtype);
    for (int64_t i = 0; i < k; ++i) {
      const int64_t from = entries[static_cast<size_t>(i)].index();
      cpu::gather_run(values + i * stride(values_), line + from * stride(x_), 0, 1, item);
      *reinterpret_cast<int64_t*>(index + i * stride(index_)) = from;
    }
  }

  const View &values_, &index_, &x_;
  int dim_;
  bool descending_;
};

}  // namespace

void Cpu::sort(const View& values, const View& index, const View& x, int dim, bool descending) {
  if (x.numel() == 0) return;
  const bool narrow = x.shape[dim] <= int64_t{1} << 32;
  const bool is_f64 = x.dtype == f64, is_i64 = x.dtype == i64;
  if (is_f64) return Sort<double, Wide>(values, index, x, dim, descending).run();
  if (is_i64 || (!narrow && is_integral(x.dtype))) return Sort<int64_t, Wide>(values, index, x, dim, descending).run();
  if (!narrow) return Sort<double, Wide>(values, index, x, dim, descending).run();
  if (is_integral(x.dtype)) return Sort<int32_t, Narrow>(values, index, x, dim, descending).run();
  Sort<float, Narrow>(values, index, x, dim, descending).run();
}

}  // namespace loom
