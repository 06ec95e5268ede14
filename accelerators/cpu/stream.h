// Writing large outputs past the caches, which saves reading their lines first.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include <loom/accelerators/cpu/narrow.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/cpu/simd.h>
#include <loom/accelerators/dtype.h>

namespace loom::cpu {

// Outputs from here on do not stay in the caches until someone reads them.
inline constexpr int64_t stream_bytes = int64_t{16} << 20;

// Input that will be read soon. Memory is asked for it a line or two at a time, between the lines of an output: a
// processor stands still when more lines are under way than it keeps account of, which a row asked for at once reaches.
struct Expected {
  const char* x = nullptr;
  int64_t bytes = 0;

  Expected() = default;
  Expected(const void* first, int64_t count) : x(static_cast<const char*>(first)), bytes(count) {}
};

// Output that lies in one piece, up to `capacity` bytes of it at a time, written past the caches. A line is held back
// until it is whole: half a line would have to go through the caches, and what follows would wait for it to be read.
template <int64_t capacity>
class LineWriter {
 public:
  void start(void* y) {
    held_ = first_ = static_cast<int64_t>(reinterpret_cast<uintptr_t>(y) % line);
    at_ = static_cast<char*>(y) - first_;
  }
  // Where the next bytes shall be put before they are committed.
  char* room() { return buffer_ + held_; }
  template <size_t count = 0>
  void commit(int64_t bytes, const std::array<Expected, count>& soon = {}) {
    bool alike = true;  // a line of each input for a line of the output
    for (const Expected& s : soon) alike &= s.bytes == bytes;
    if (alike) {
      const int64_t written = write_lines(bytes, [&](int64_t i) {
        for (const Expected& s : soon) prefetch(s.x + i);
      });
      for (const Expected& s : soon) prefetch_run(s.x + written, bytes - written);
    } else {
      const int64_t lines = (bytes + line - 1) / line;
      std::array<int64_t, count> asked{}, share;
      for (size_t k = 0; k < count; ++k) share[k] = (soon[k].bytes + lines - 1) / lines;
      write_lines(bytes, [&](int64_t) {
        for (size_t k = 0; k < count; ++k) {
          prefetch_run(soon[k].x + asked[k], share[k]);
          asked[k] += share[k];
        }
      });
    }
  }
  void finish() {
    std::memcpy(at_ + first_, buffer_ + first_, static_cast<size_t>(held_ - first_));
    stream_fence();
  }

 private:
  // Calls each(i) after the line of byte i of those in buffer_; bytes of lines that were written.
  template <class F>
  int64_t write_lines(int64_t bytes, F each) {
    held_ += bytes;
    const int64_t whole = held_ & ~(line - 1);
    if (whole == 0) return 0;
    int64_t i = 0;
    if (first_ > 0) {  // the other part of this line is not ours
      std::memcpy(at_ + first_, buffer_ + first_, static_cast<size_t>(line - first_));
      first_ = 0;
      i = line;
    }
    for (; i < whole; i += line) {
      for (int64_t j = 0; j < line; j += vector_bytes) stream(at_ + i + j, buffer_ + i + j);
      each(i);
    }
    at_ += whole;
    held_ -= whole;
    std::memcpy(buffer_, buffer_ + whole, line);
    return whole;
  }

  static constexpr int64_t line = 64;
  char* at_ = nullptr;            // the line that buffer_ begins with
  int64_t held_ = 0, first_ = 0;  // bytes in buffer_; where the first line that is ours begins
  alignas(64) char buffer_[capacity + 2 * line];
};

// A row that will be read after this one: memory gets to work while this one is worked on. Every other line, as second
// caches fetch them in pairs, and no nearer: the lines that are being read would have to wait for those asked for.
template <class S>
void ask_for_row(const S* x, int64_t n) {
  constexpr int64_t most = 16384;  // bytes; what comes later is asked for by the processor itself
  const int64_t bytes = std::min(n * static_cast<int64_t>(sizeof(S)), most);
  for (int64_t i = 0; i < bytes; i += 128) prefetch_second(reinterpret_cast<const char*>(x) + i);
}

template <class To, class From>
void convert_row(To* __restrict y, const From* __restrict x, int64_t n) {
  if constexpr (std::is_same_v<To, BFloat16> && std::is_same_v<From, float>)
    narrow_run(y, x, n);
  else
    for (int64_t i = 0; i < n; ++i) y[i] = static_cast<To>(static_cast<compute_type<To>>(x[i]));
}

// Rows of S as a kernel reads them: where they lie, or widened into L1.
template <class S>
class RowSource {
 public:
  using T = compute_type<S>;
  explicit RowSource(int64_t longest) {
    if constexpr (!std::is_same_v<S, T>) row_ = Scratch<T>(longest);
  }
  const T* operator()(const S* x, int64_t n) {
    if constexpr (std::is_same_v<S, T>)
      return x;
    else {
      convert_row(row_.data(), x, n);
      return row_.data();
    }
  }

 private:
  Scratch<T> row_;
};

// Where a kernel computes rows of up to n elements that follow each other: in the output itself, or in L1 where the
// output is large or of 16 bits.
template <class S>
class RowTarget {
 public:
  using T = compute_type<S>;
  // total: elements of the whole output
  RowTarget(int64_t total, int64_t n)
      : streams_(n <= length && total * static_cast<int64_t>(sizeof(S)) >= stream_bytes) {
    if constexpr (!std::is_same_v<S, T>) row_ = Scratch<T>(n);
  }
  ~RowTarget() {
    if (started_) lines_.finish();
  }
  RowTarget(const RowTarget&) = delete;
  RowTarget& operator=(const RowTarget&) = delete;

  T* begin(S* y) {
    if (streams_ && !started_) {
      lines_.start(y);
      started_ = true;
    }
    if constexpr (std::is_same_v<S, T>)
      return streams_ ? reinterpret_cast<T*>(lines_.room()) : y;
    else
      return row_.data();
  }
  void end(S* y, int64_t n) {
    if constexpr (!std::is_same_v<S, T>)
      convert_row(streams_ ? reinterpret_cast<S*>(lines_.room()) : y, row_.data(), n);
    if (streams_) lines_.commit(n * static_cast<int64_t>(sizeof(S)));
  }

 private:
  static constexpr int64_t bytes = 16384, length = bytes / sizeof(T);
  bool streams_, started_ = false;
  Scratch<T> row_;
  LineWriter<bytes> lines_;
};

}  // namespace loom::cpu
