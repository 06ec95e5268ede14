// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "kernel_test.h"

using namespace kernel_test;

namespace {

constexpr DType every_dtype[] = {DType::f64, DType::f32, DType::f16, DType::bf16,
                                 DType::i64, DType::i32, DType::u8,  DType::boolean};

// The row-major position of `index` in `from`'s shape, moved to position `value` along dim of `to`'s shape.
size_t moved(int64_t index, const Dims& from, const Dims& to, int dim, int64_t value) {
  int64_t position = 0, step = 1;
  for (int d = from.size() - 1; d >= 0; --d) {
    position += (d == dim ? value : index % from[d]) * step;
    index /= from[d];
    step *= to[d];
  }
  return static_cast<size_t>(position);
}
int64_t coordinate(int64_t index, const Dims& shape, int dim) {
  for (int d = shape.size() - 1; d > dim; --d) index /= shape[d];
  return index % shape[dim];
}
Array random_index(const Dims& shape, int64_t extent, Layout layout = Layout::dense) {
  return random(DType::i64, shape, layout, 0, static_cast<double>(extent) - 0.01);
}
double high_of(DType t) { return is_floating(t) ? 1 : t == DType::boolean ? 1.99 : 100; }
Array random_for(DType t, const Dims& shape, Layout layout) {
  return random(t, shape, layout, is_floating(t) ? -1 : 0, high_of(t));
}

}  // namespace

TEST_CASE("index_select and index_add: every dim, dtype and layout") {
  for (const DType t : every_dtype)
    for (const Layout layout : layouts)
      for (const Dims& shape : {Dims{5}, Dims{4, 3}, Dims{3, 5, 200}, Dims{2, 3, 4, 5}})
        for (int dim = 0; dim < shape.size(); ++dim)
          for (const int64_t count : {0, 1, 9}) {
            CAPTURE(to_string(t));
            CAPTURE(to_string(shape));
            CAPTURE(dim);
            Dims out = shape;
            out[dim] = count;
            const Array x = random_for(t, shape, layout), index = random_index({count}, shape[dim], layout);
            const Array y(t, out, layout);
            cpu_accelerator().index_select(y, x, index, dim);
            std::vector<double> expected;
            for (int64_t i = 0; i < out.numel(); ++i) {
              const auto at = static_cast<int64_t>(get(index, coordinate(i, out, dim)));
              expected.push_back(get(x, static_cast<int64_t>(moved(i, out, shape, dim, at))));
            }
            check_close(y, expected, 0);

            if (t == DType::boolean) continue;
            const Array total = random_for(t, shape, layout), terms = random_for(t, out, layout);
            std::vector<double> sums = values(total);
            for (int64_t i = 0; i < out.numel(); ++i)
              sums[moved(i, out, shape, dim, static_cast<int64_t>(get(index, coordinate(i, out, dim))))] +=
                  get(terms, i);
            if (t == DType::u8)
              for (double& v : sums) v = std::fmod(v, 256);
            cpu_accelerator().index_add(total, terms, index, dim);
            check_close(total, sums, is_floating(t) ? 8 * epsilon(t) : 0);
          }
}

TEST_CASE("index_select: rows of any length, few and many") {
  for (const int64_t width : {4, 5, 16, 48, 67, 1030})
    for (const int64_t count : {int64_t{50}, (int64_t{4} << 20) / width + 300}) {  // the latter past the caches
      const Array x = random(DType::f32, {211, width}, Layout::dense, -1, 1), index = random_index({count}, 211);
      const Array y(DType::f32, {count, width});
      cpu_accelerator().index_select(y, x, index, 0);
      const View table = x, places = index, list = y;
      bool same = true;
      for (int64_t i = 0; i < count; ++i)
        same &= std::memcmp(list.as<float>() + i * width, table.as<float>() + places.as<int64_t>()[i] * width,
                            static_cast<size_t>(width) * sizeof(float)) == 0;
      CHECK_MESSAGE(same, count, " rows of ", width);
    }
}

TEST_CASE("gather and scatter: every dim, dtype and layout") {
  for (const DType t : every_dtype)
    for (const Layout layout : layouts)
      for (const Dims& shape : {Dims{5}, Dims{4, 3}, Dims{3, 5, 200}})
        for (int dim = 0; dim < shape.size(); ++dim) {
          CAPTURE(to_string(t));
          CAPTURE(to_string(shape));
          CAPTURE(dim);
          Dims out = shape;  // an index may be shorter than the table in the other dims
          out[dim] = 6;
          if (dim != 0) out[0] -= 1;
          const Array x = random_for(t, shape, layout), index = random_index(out, shape[dim], layout),
                      y(t, out, layout);
          const auto target = [&](int64_t i) { return moved(i, out, shape, dim, static_cast<int64_t>(get(index, i))); };
          cpu_accelerator().gather(y, x, index, dim);
          std::vector<double> expected;
          for (int64_t i = 0; i < out.numel(); ++i) expected.push_back(get(x, static_cast<int64_t>(target(i))));
          check_close(y, expected, 0);

          const Array table = random_for(t, shape, layout), terms = random_for(t, out, layout);
          std::vector<double> assigned = values(table), added = assigned;
          for (int64_t i = 0; i < out.numel(); ++i) assigned[target(i)] = get(terms, i);  // the last one stays
          for (int64_t i = 0; i < out.numel(); ++i) added[target(i)] += get(terms, i);
          const Array sum = array(t, shape, values(table), layout);
          cpu_accelerator().scatter(Scatter::assign, table, terms, index, dim);
          check_close(table, assigned, 0);
          if (t == DType::boolean) continue;
          if (t == DType::u8)
            for (double& v : added) v = std::fmod(v, 256);
          cpu_accelerator().scatter(Scatter::add, sum, terms, index, dim);
          check_close(sum, added, is_floating(t) ? 8 * epsilon(t) : 0);
        }
}

TEST_CASE("index: scalars") {
  const Array x = array(DType::f32, {}, {3}), y(DType::f32, {}), index = array(DType::i64, {}, {0});
  cpu_accelerator().gather(y, x, index, 0);
  CHECK(get(y, 0) == 3);
  cpu_accelerator().scatter(Scatter::add, y, x, index, 0);
  CHECK(get(y, 0) == 6);
  const Array picked(DType::f32, {}), row = array(DType::f32, {3}, {1, 2, 3});
  cpu_accelerator().index_select(y, x, list({0}), 0);
  CHECK(get(y, 0) == 3);
  CHECK_THROWS_WITH_AS(cpu_accelerator().gather(y, x, array(DType::i64, {}, {1}), 0),
                       "gather: index 1 is out of range for dimension 0 of size 1", Error);
}

TEST_CASE("index: a source repeated by stride 0 and an index repeated by stride 0") {
  const Array one = array(DType::f32, {1}, {2}), single = list({1});
  View x = one.view, index = single.view;
  x.shape = {3, 4};
  x.strides = {0, 0};
  index.shape = {3, 4};
  index.strides = {0, 0};
  const Array y = array(DType::f32, {3, 4}, std::vector<double>(12, 1.0));
  cpu_accelerator().scatter(Scatter::add, y, x, index, 0);
  check_close(y, {1, 1, 1, 1, 7, 7, 7, 7, 1, 1, 1, 1}, 0);
  const Array out(DType::f32, {3, 4});
  cpu_accelerator().gather(out, y, index, 0);
  check_close(out, std::vector<double>(12, 7.0), 0);
}

TEST_CASE("index_add: 16-bit sums are kept in f32; the same bits on any number of threads") {
  std::vector<int64_t> zeros(3000, 0);
  const Array terms = array(DType::bf16, {3000, 1}, std::vector<double>(3000, 1.0)), index = list(zeros);
  const Array total = array(DType::bf16, {2, 1}, {0, 5});
  cpu_accelerator().index_add(total, terms, index, 0);
  CHECK(get(total, 0) == 3008);  // 3000 rounded to bf16 once; adding in bf16 stops at 256
  CHECK(get(total, 1) == 5);

  for (const int64_t extent : {1, 20, 700})  // of the last, threads take whole rows
    for (const int64_t width : {5, 300}) {
      const Array rows = random(DType::f32, {5000, width}), where = random_index({5000}, extent);
      std::vector<double> first;
      for (const int threads : {1, 2, 3}) {
        const Threads scope(threads);
        const Array sum =
            array(DType::f32, {extent, width}, std::vector<double>(static_cast<size_t>(extent * width), 0.0));
        cpu_accelerator().index_add(sum, rows, where, 0);
        if (first.empty()) first = values(sum);
        CHECK(values(sum) == first);
      }
    }
}

TEST_CASE("index: out of range") {
  const Array x = random(DType::f32, {5, 2}), y(DType::f32, {3, 2}), high = list({0, 7, 9}), low = list({0, -1, 2});
  Accelerator& cpu = cpu_accelerator();
  const std::vector<double> before = values(x);
  CHECK_THROWS_WITH_AS(cpu.index_select(y, x, high, 0),
                       "index_select: index 7 is out of range for dimension 0 of size 5", Error);
  CHECK_THROWS_WITH_AS(cpu.index_select(y, x, low, 0),
                       "index_select: index -1 is out of range for dimension 0 of size 5", Error);
  CHECK_THROWS_WITH_AS(cpu.index_add(x, y, high, 0), "index_add: index 7 is out of range for dimension 0 of size 5",
                       Error);
  const Array wide = array(DType::i64, {3, 2}, {0, 1, 0, 2, -3, 0});
  CHECK_THROWS_WITH_AS(cpu.gather(y, x, wide, 1), "gather: index 2 is out of range for dimension 1 of size 2", Error);
  CHECK_THROWS_WITH_AS(cpu.scatter(Scatter::assign, x, y, wide, 1),
                       "scatter: index 2 is out of range for dimension 1 of size 2", Error);
  CHECK_THROWS_WITH_AS(cpu.scatter(Scatter::add, x, y, wide, 0),
                       "scatter_add: index -3 is out of range for dimension 0 of size 5", Error);
  CHECK(values(x) == before);  // nothing half done
}

TEST_CASE("index: sums of booleans are refused") {
  const Array x(DType::boolean, {2, 2}), index = list({0, 1}), wide = array(DType::i64, {2, 2}, {0, 0, 0, 0});
  CHECK_THROWS_WITH_AS(cpu_accelerator().index_add(x, x, index, 0), "index_add: not implemented for boolean on cpu",
                       Error);
  CHECK_THROWS_WITH_AS(cpu_accelerator().scatter(Scatter::add, x, x, wide, 0),
                       "scatter_add: not implemented for boolean on cpu", Error);
}
