// Writing large outputs past the caches, which saves reading their lines first.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include <loom/accelerators/cpu/simd.h>

namespace loom::cpu {

// Outputs from here on do not stay in the caches until someone reads them.
inline constexpr int64_t stream_bytes = int64_t{16} << 20;

// memcpy past the caches; stream_fence() must follow.
inline void stream_run(void* to, const void* from, int64_t bytes) {
  constexpr int64_t line = 64;
  char* const y = static_cast<char*>(to);
  const char* const x = static_cast<const char*>(from);
  const int64_t head = std::min<int64_t>(bytes, -reinterpret_cast<intptr_t>(y) & (line - 1));
  std::memcpy(y, x, static_cast<size_t>(head));
  int64_t i = head;
  for (; i + line <= bytes; i += line)
    for (int64_t j = 0; j < line; j += vector_bytes) stream(y + i + j, x + i + j);
  std::memcpy(y + i, x + i, static_cast<size_t>(bytes - i));
}

// Where a kernel computes a row of n elements: in the output itself, or in L1 where the output is large.
template <class T>
class RowTarget {
 public:
  RowTarget(int64_t rows, int64_t n)
      : streams_(n <= length && rows * n * static_cast<int64_t>(sizeof(T)) >= stream_bytes) {}
  ~RowTarget() {
    if (streams_) stream_fence();
  }
  RowTarget(const RowTarget&) = delete;
  RowTarget& operator=(const RowTarget&) = delete;

  T* begin(T* y) { return streams_ ? row_ : y; }
  void end(T* y, int64_t n) {
    if (streams_) stream_run(y, row_, n * static_cast<int64_t>(sizeof(T)));
  }

 private:
  static constexpr int64_t length = 16384 / sizeof(T);
  bool streams_;
  alignas(64) T row_[length];
};

}  // namespace loom::cpu
