// A short list of extents or strides, held inline: no heap traffic for shapes.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <loom/accelerators/error.h>

namespace loom {

class Dims {
 public:
  static constexpr int max_rank = 8;

  constexpr Dims() = default;
  // One extent, or one dimension: zeros(3), sum(x, 1).
  template <class T>
    requires(std::is_integral_v<T> && !std::is_same_v<T, bool>)
  Dims(T value) : Dims{static_cast<int64_t>(value)} {}  // NOLINT
  Dims(std::initializer_list<int64_t> values) : Dims(std::span(values.begin(), values.size())) {}
  Dims(const std::vector<int64_t>& values) : Dims(std::span(values)) {}  // NOLINT: a shape is a list of numbers
  explicit Dims(std::span<const int64_t> values) {
    for (const int64_t v : values) push_back(v);
  }
  static Dims filled(int rank, int64_t value) {
    Dims out;
    for (int i = 0; i < rank; ++i) out.push_back(value);
    return out;
  }

  int size() const { return rank_; }
  bool empty() const { return rank_ == 0; }
  int64_t operator[](int i) const { return values_[static_cast<size_t>(i)]; }
  int64_t& operator[](int i) { return values_[static_cast<size_t>(i)]; }
  int64_t back() const { return values_[static_cast<size_t>(rank_ - 1)]; }
  int64_t& back() { return values_[static_cast<size_t>(rank_ - 1)]; }
  const int64_t* begin() const { return values_.data(); }
  const int64_t* end() const { return values_.data() + rank_; }
  int64_t* begin() { return values_.data(); }
  int64_t* end() { return values_.data() + rank_; }
  operator std::span<const int64_t>() const { return {begin(), end()}; }  // NOLINT: a Dims is a span of numbers

  void push_back(int64_t value) {
    check(rank_ < max_rank, "a tensor has at most ", max_rank, " dimensions");
    values_[static_cast<size_t>(rank_++)] = value;
  }
  void insert(int position, int64_t value) {
    push_back(value);
    for (int i = rank_ - 1; i > position; --i) (*this)[i] = (*this)[i - 1];
    (*this)[position] = value;
  }
  void erase(int position) {
    for (int i = position; i + 1 < rank_; ++i) (*this)[i] = (*this)[i + 1];
    --rank_;
  }

  // Product of the extents; 1 for rank 0.
  int64_t numel() const {
    int64_t n = 1;
    for (const int64_t v : *this) n *= v;
    return n;
  }
  friend bool operator==(const Dims& a, const Dims& b) {
    if (a.rank_ != b.rank_) return false;
    for (int i = 0; i < a.rank_; ++i)
      if (a[i] != b[i]) return false;
    return true;
  }
  friend std::ostream& operator<<(std::ostream& out, const Dims& dims);

 private:
  std::array<int64_t, max_rank> values_{};
  int rank_ = 0;
};

std::string to_string(const Dims& dims);  // "[2, 3]"

// Strides, in elements, of a dense row-major array of this shape.
Dims row_major_strides(const Dims& shape);

// A batch of matrices [.., rows, columns]: the dims of the batch alone (shape has two or more), and with a matrix.
Dims batch_dims(const Dims& shape);
Dims with_matrix(const Dims& batch, int64_t rows, int64_t columns);

}  // namespace loom
