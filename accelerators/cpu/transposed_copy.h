// SPDX-License-Identifier: Apache-2.0
// Copies of what lies across, as a transposed matrix does: large ones past the caches, whole lines at a time, while the
// lines that come next are on their way.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include <loom/accelerators/cpu/convert.h>
#include <loom/accelerators/cpu/loop.h>
#include <loom/accelerators/cpu/stream.h>
#include <loom/accelerators/cpu/transpose.h>

namespace loom::cpu {

// y, dense along the inner dimension, becomes x, dense along the one across, whose elements are like Bits. Blocks are
// bands of the inner dimension, so high as a few lines of y, by some columns across; they follow each other up the rows
// of x, as many as a processor sees coming.
template <class Bits>
class TransposedCopy {
 public:
  // convert: from x's dtype to y's; null: they are the same. past: the caches, where that can be.
  TransposedCopy(const Loop<2>& loop, int across, int64_t y_item, Convert convert, bool past)
      : loop_(loop),
        across_(across),
        rows_(loop.inner_extent()),
        columns_(loop.extent(across)),
        x_step_(loop.inner_stride(1)),
        y_step_(loop.stride(0, across)),
        y_item_(y_item),
        convert_(convert),
        put_(way(past)),
        height_(band_height()),
        width_(std::min(columns_, std::max(block_bytes / height_ / line, least_lines) * in_line)) {}

  void run() const {
    const int64_t outer = loop_.numel() / (rows_ * columns_), total = outer * bands() * segments();
    parallel_for(total, std::max<int64_t>(1, grain / (height_ * width_)), [&](int64_t begin, int64_t end) {
      alignas(line) char buffer[buffer_bytes];
      for (int64_t b = begin; b < end; ++b) {
        Upcoming upcoming = b + 1 < end ? Upcoming(block(b + 1), x_step_) : Upcoming();
        copy(block(b), buffer, upcoming);
      }
      if (put_ >= Put::lines) stream_fence();
    });
  }

 private:
  static constexpr int64_t item = sizeof(Bits), line = 64, in_line = line / item,
                           step = std::max<int64_t>(16, 32 / item);
  static constexpr int64_t most_rows = 256, buffer_bytes = (most_rows + in_line) * line;
  static constexpr int64_t block_bytes = 16384, least_lines = 16;

  enum class Put : uint8_t {
    direct,
    converted,
    lines,   // past the caches from here on; every row of y begins with a line
    joined,  // rows of y follow each other and are not split
    skewed,  // lines of y begin at another element in each row
  };

  struct Block {
    char* y;
    const char* x;
    int64_t first, rows, columns;  // first: of the rows, in y's inner dimension
    int64_t owned;                 // rows whose lines are written; others are there for the ends of these
  };

  // Lines of a block that memory is asked for while another is worked on.
  class Upcoming {
   public:
    Upcoming() = default;
    Upcoming(const Block& block, int64_t x_step)
        : row_(block.x), step_(x_step), rows_(block.rows), width_(block.columns * item) {}
    void ask(int64_t lines) {
      for (; lines > 0 && rows_ > 0; --lines) {
        __builtin_prefetch(row_ + at_, 0, 2);  // no nearer than the second cache
        at_ += line;
        if (at_ < width_) continue;
        at_ = 0;
        row_ += step_;
        --rows_;
      }
    }

   private:
    const char* row_ = nullptr;
    int64_t step_ = 0, rows_ = 0, width_ = 0, at_ = 0;
  };

  // Rows of y so short that they have no line for themselves go through the caches, unless they follow each other.
  Put way(bool past) const {
    if (convert_ != nullptr) return Put::converted;
    if (!past) return Put::direct;
    auto bits = reinterpret_cast<uintptr_t>(loop_.data()[0]);
    for (int i = 0; i < loop_.rank() - 1; ++i) bits |= static_cast<uintptr_t>(loop_.stride(0, i));
    if (bits % line == 0 && rows_ * item >= line) return Put::lines;
    if (y_step_ == rows_ * item && rows_ <= most_rows) return Put::joined;
    return rows_ * item >= 4 * line ? Put::skewed : Put::direct;
  }

  int64_t band_height() const {
    if (put_ == Put::joined) return rows_;
    const int64_t least = put_ == Put::skewed ? 8 * in_line : std::max<int64_t>(in_line, 32);
    const int64_t wanted = std::max(block_bytes / std::min(columns_ * item, least_lines * line), least);
    return std::min(whole_lines(wanted), std::min(most_rows, whole_lines(rows_)));
  }
  static int64_t whole_lines(int64_t rows) { return (rows + in_line - 1) / in_line * in_line; }
  int64_t bands() const { return (rows_ + height_ - 1) / height_; }
  int64_t segments() const { return (columns_ + width_ - 1) / width_; }

  Block block(int64_t index) const {
    const int64_t column = index % segments() * width_, band = index / segments();
    const int64_t first = band % bands() * height_, owned = std::min(height_, rows_ - first);
    const auto at = loop_.start_of(band / bands(), across_);
    const int64_t rows = std::min(owned + (put_ == Put::skewed ? in_line : 0), rows_ - first);
    return {at[0] + column * y_step_,
            at[1] + first * x_step_ + column * item,
            first,
            rows,
            std::min(width_, columns_ - column),
            owned};
  }

  // Through L1 unless y takes its elements as they come; lines of y are then written whole.
  void copy(const Block& block, char* buffer, Upcoming& upcoming) const {
    if (put_ == Put::direct)
      return transpose_block<Bits>(block.y + block.first * item, y_step_, block.x, x_step_, block.rows, block.columns);
    const int64_t pitch = block.rows * item;
    for (int64_t c = 0; c < block.columns; c += in_line) {
      const int64_t columns = std::min(in_line, block.columns - c);
      for (int64_t r = 0; r < block.rows; r += step) {
        transpose_block<Bits, std::min(vector_bytes, 32)>(buffer + r * item, pitch, block.x + r * x_step_ + c * item,
                                                          x_step_, std::min(step, block.rows - r), columns);
        upcoming.ask(step + 1);
      }
      put(block, block.y + c * y_step_, buffer, columns);
    }
    upcoming.ask(block_bytes);
  }

  void put(const Block& block, char* y, const char* from, int64_t columns) const {
    const int64_t pitch = block.rows * item;
    if (put_ == Put::joined) return put_run(y, from, columns * pitch);
    char* const band = y + block.first * y_item_;
    if (put_ == Put::lines) return put_lines(band, from, pitch, columns);
    for (int64_t i = 0; i < columns; ++i)
      if (put_ == Put::converted)
        convert_(band + i * y_step_, from + i * pitch, block.rows);
      else
        put_skewed(block, y + i * y_step_, from + i * pitch);
  }

  void put_lines(char* y, const char* from, int64_t bytes, int64_t columns) const {
    const int64_t whole = bytes / line * line;
    for (int64_t i = 0; i < columns; ++i, y += y_step_, from += bytes) {
      for (int64_t j = 0; j < whole; j += vector_bytes) stream(y + j, from + j);
      if (whole < bytes) std::memcpy(y + whole, from + whole, static_cast<size_t>(bytes - whole));
    }
  }

  // The lines of a row of y that begin within the band, and what is before the first and after the last of them.
  void put_skewed(const Block& block, char* y, const char* row) const {
    int64_t from = block.first * item, to = from + block.owned * item;
    if (block.first > 0) from += to_line(y + from);
    if (block.first + block.owned < rows_) to = std::min(to + to_line(y + to), rows_ * item);
    if (from < to) put_run(y + from, row + from - block.first * item, to - from);
  }

  static int64_t to_line(const char* p) { return static_cast<int64_t>(-reinterpret_cast<uintptr_t>(p) % line); }

  static void put_run(char* y, const char* x, int64_t n) {
    int64_t i = std::min(to_line(y), n);
    if (i > 0) std::memcpy(y, x, static_cast<size_t>(i));
    for (; i + line <= n; i += line)
      for (int64_t j = i; j < i + line; j += vector_bytes) stream(y + j, x + j);
    if (i < n) std::memcpy(y + i, x + i, static_cast<size_t>(n - i));
  }

  const Loop<2>& loop_;
  int across_;
  int64_t rows_, columns_, x_step_, y_step_, y_item_;
  Convert convert_;
  Put put_;
  int64_t height_, width_;
};

}  // namespace loom::cpu
