// SPDX-License-Identifier: Apache-2.0
// Writing some rows side by side past the caches, a piece of each in turn.
#pragma once

#include <cstdint>
#include <cstring>

#include <loom/accelerators/cpu/simd.h>

namespace loom::cpu {

// Up to `most` rows, in pieces of up to `capacity` bytes. As with LineWriter, what a piece leaves of a line is held
// back until the row's next piece makes the line whole.
template <int64_t most, int64_t capacity>
class BandWriter {
 public:
  // The row's first piece will go to y.
  void start(int64_t row, const char* y) {
    ends_[row].held = ends_[row].first = static_cast<int64_t>(reinterpret_cast<uintptr_t>(y) % line);
  }
  // Where the row's next piece shall be put before it is committed.
  char* room(int64_t row) {
    std::memcpy(buffer_, ends_[row].bytes, line);
    return buffer_ + ends_[row].held;
  }
  void commit(int64_t row, char* y, int64_t bytes) {
    End& end = ends_[row];
    char* const at = y - end.held;  // a line begins here
    const int64_t total = end.held + bytes, whole = total & ~(line - 1);
    int64_t i = 0;
    if (whole > 0 && end.first > 0) {  // the other part of this line is not ours
      std::memcpy(at + end.first, buffer_ + end.first, static_cast<size_t>(line - end.first));
      end.first = 0;
      i = line;
    }
    for (; i < whole; i += line)
      for (int64_t j = 0; j < line; j += vector_bytes) stream(at + i + j, buffer_ + i + j);
    std::memcpy(end.bytes, buffer_ + whole, line);
    end.held = total - whole;
  }
  // The row ends before y_end. stream_fence() when all rows have ended.
  void finish(int64_t row, char* y_end) {
    const End& end = ends_[row];
    std::memcpy(y_end - end.held + end.first, end.bytes + end.first, static_cast<size_t>(end.held - end.first));
  }

 private:
  static constexpr int64_t line = 64;
  struct End {
    alignas(line) char bytes[line];
    int64_t held, first;  // bytes of the line so far; where in it the row begins
  };
  End ends_[most];
  alignas(line) char buffer_[capacity + 2 * line];
};

}  // namespace loom::cpu
