// SPDX-License-Identifier: Apache-2.0
// Copies of, and elementwise work on, what lies across the output, as a transposed matrix does.
#include <doctest/doctest.h>

#include <loom/accelerators/threads.h>

#include "array.h"

using namespace loom;
using namespace loom::testing;

namespace {

// How an output of shape [matrices, columns, rows] lies: `gap` elements between its rows, the first of which begins
// `offset` elements after a line of the caches. Dims of bit 1 << d are walked from high addresses to low ones.
struct Layout {
  int64_t matrices, rows, gap, offset;
  unsigned y_turned = 0, x_turned = 0;
};

// v from the other end of some dims.
View turned(View v, unsigned dims) {
  for (int d = 0; d < v.rank(); ++d)
    if ((dims >> d & 1) != 0) {
      v.data = v.as<std::byte>() + (v.shape[d] - 1) * v.strides[d] * static_cast<int64_t>(item_size(v.dtype));
      v.strides[d] = -v.strides[d];
    }
  return v;
}

template <class T>
T& at(const View& v, int64_t matrix, int64_t column, int64_t row) {
  return v.as<T>()[matrix * v.strides[0] + column * v.strides[1] + row * v.strides[2]];
}

// Memory of the output of some bytes, and of inputs that lie across it or as it does.
template <class T>
class Matrices {
 public:
  Matrices(DType t, int64_t bytes, const Layout& l)
      : t_(t),
        l_(l),
        columns_(bytes / item / l.matrices / l.rows + 3),
        step_(l.rows + l.gap),
        y_(static_cast<size_t>(l.matrices * columns_ * step_ + 2 * in_line), T{77}) {}

  std::vector<T> input(uint64_t seed) const {
    std::vector<T> x(static_cast<size_t>(l_.matrices * columns_ * l_.rows));
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>((i + seed) * 7919 >> 3);
    return x;
  }
  Dims shape() const { return {l_.matrices, columns_, l_.rows}; }
  template <class X>
  View across(std::vector<X>& x, DType t) const {
    return turned({x.data(), t, {}, shape(), {l_.rows * columns_, 1, columns_}}, l_.x_turned);
  }
  View along(std::vector<T>& x) const {
    return turned({x.data(), t_, {}, shape(), {l_.rows * columns_, l_.rows, 1}}, l_.x_turned);
  }

  // Whether run(y) writes element(matrix, column, row) everywhere, and nothing between the rows.
  template <class Run, class Element>
  bool right(const Run& run, const Element& element) {
    std::vector<T> expected = y_;
    const auto past_line = static_cast<int64_t>(reinterpret_cast<uintptr_t>(y_.data()) % line) / item;
    const int64_t first = in_line - past_line + l_.offset;
    const auto view = [&](std::vector<T>& memory) {
      return turned({memory.data() + first, t_, {}, shape(), {columns_ * step_, step_, 1}}, l_.y_turned);
    };
    const View wanted = view(expected);
    for (int64_t m = 0; m < l_.matrices; ++m)
      for (int64_t c = 0; c < columns_; ++c)
        for (int64_t r = 0; r < l_.rows; ++r) at<T>(wanted, m, c, r) = element(m, c, r);
    run(view(y_));
    return y_ == expected;
  }

 private:
  static constexpr int64_t line = 64, item = sizeof(T), in_line = line / item;
  DType t_;
  Layout l_;
  int64_t columns_, step_;
  std::vector<T> y_;
};

template <class T>
void check_copy(DType t, int64_t bytes, const Layout& l) {
  Matrices<T> matrices(t, bytes, l);
  std::vector<T> memory = matrices.input(0);
  const View x = matrices.across(memory, t);
  CHECK(matrices.right([&](const View& y) { cpu().copy(y, x); },
                       [&](int64_t m, int64_t c, int64_t r) { return at<T>(x, m, c, r); }));
}

// A choice, by what lies across, between what lies across and what does not.
template <class T>
void check_where(DType t, int64_t bytes, const Layout& l) {
  Matrices<T> matrices(t, bytes, l);
  std::vector<T> a_memory = matrices.input(0), b_memory = matrices.input(5);
  std::vector<uint8_t> bits(a_memory.size());
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = i % 7 % 3 == 1 ? 1 : 0;
  const View a = matrices.across(a_memory, t), b = matrices.along(b_memory), chosen = matrices.across(bits, boolean);
  CHECK(matrices.right([&](const View& y) { cpu().where(y, chosen, a, b); },
                       [&](int64_t m, int64_t c, int64_t r) {
                         return at<uint8_t>(chosen, m, c, r) != 0 ? at<T>(a, m, c, r) : at<T>(b, m, c, r);
                       }));
}

// check(type, dtype, bytes, layout) with outputs of some sizes and every size of elements, on some threads.
template <class Check>
void for_layouts(std::initializer_list<Layout> layouts, std::initializer_list<int64_t> sizes, const Check& check) {
  const int before = num_threads();
  for (const Layout& l : layouts)
    for (const int64_t bytes : sizes) {
      INFO(bytes, " bytes of ", l.matrices, " matrices, rows of ", l.rows, ", ", l.gap, " apart, from ", l.offset,
           ", turned ", l.y_turned, " ", l.x_turned);
      set_num_threads(1 + static_cast<int>(l.rows % 3));
      check(uint8_t{}, u8, bytes, l);
      check(uint16_t{}, bf16, bytes, l);
      check(uint32_t{}, f32, bytes, l);
      check(uint64_t{}, i64, bytes, l);
    }
  set_num_threads(before);
}

constexpr unsigned matrices_turned = 1, columns_turned = 2, rows_turned = 4;
constexpr int64_t small = int64_t{200} << 10;

}  // namespace

TEST_CASE("across: small and large copies") {
  for_layouts({{1, 1024, 0, 0},
               {1, 1000, 24, 0},
               {1, 1001, 0, 0},
               {1, 1024, 0, 3},
               {2, 777, 6, 5},
               {3, 20, 0, 0},
               {3, 3, 0, 0},
               {2, 2, 1, 0},
               {1, 8, 0, 1},
               {2, 20, 3, 0},
               {7, 64, 0, 0},
               {1, 65536, 0, 0},
               {1, 70001, 0, 0},
               {1, 1000, 24, 0, 0, rows_turned},
               {2, 1001, 0, 0, columns_turned, 0},
               {3, 20, 0, 0, matrices_turned, rows_turned},
               {2, 777, 6, 5, matrices_turned | columns_turned, matrices_turned | rows_turned},
               {2, 300, 4, 0, 0, columns_turned}},
              {small, int64_t{9} << 20}, []<class T>(T, DType t, int64_t bytes, const Layout& l) {
                CAPTURE(to_string(t));
                check_copy<T>(t, bytes, l);
              });
}

TEST_CASE("across: small and large elementwise work") {
  for_layouts({{1, 1001, 0, 0},
               {2, 777, 6, 5},
               {1, 1024, 0, 0, 0, rows_turned},
               {2, 300, 5, 3, matrices_turned | columns_turned, matrices_turned | rows_turned},
               {1, 20, 0, 1, columns_turned, 0},
               {3, 70, 3, 0}},
              {small, int64_t{17} << 20}, []<class T>(T, DType t, int64_t bytes, const Layout& l) {
                CAPTURE(to_string(t));
                check_where<T>(t, bytes, l);
              });
}

TEST_CASE("across: inputs of every dtype, any sizes, batches, broadcast, parts of larger ones") {
  for (const DType t : all_dtypes)
    for (const auto& [rows, columns] :
         std::vector<std::pair<int64_t, int64_t>>{{16, 16}, {17, 150}, {300, 33}, {129, 70}, {70, 601}})
      for (const int64_t gap : {0, 3}) {
        const Dims shape{2, rows, columns}, across{rows * (columns + gap), 1, rows + gap};
        const auto draw = [&](int64_t i) { return t == boolean ? i % 3 % 2 : static_cast<double>((i * 7 + 3) % 100); };
        const Array a(t, shape, across, draw);
        const Array b(t, shape, [&](int64_t i) { return draw(i + 5); });
        const Array row(t, shape, {0, 0, 1}, [&](int64_t i) { return draw(i % columns); });
        const Array bits(boolean, shape, {rows * columns, 1, rows}, [](int64_t i) { return i % 5 % 2; });
        Array y(t, shape), z(t, shape), u(t, shape), w(t, shape);
        cpu().binary(Binary::maximum, y, a, b);
        cpu().binary(Binary::minimum, z, row, a);
        cpu().unary(Unary::square, u, a, 0, 0);
        cpu().where(w, bits, b, a);
        for (int64_t i = 0; i < a.numel(); ++i) {
          REQUIRE(y[i] == std::max(a[i], b[i]));
          REQUIRE(z[i] == std::min(a[i], row[i]));
          REQUIRE(w[i] == (bits[i] != 0 ? b[i] : a[i]));
          if (t == f32 || t == f64) REQUIRE(u[i] == a[i] * a[i]);
        }
        cpu().binary(Binary::maximum, b, b, a);  // in place
        for (int64_t i = 0; i < a.numel(); ++i) REQUIRE(b[i] == y[i]);
      }
}
