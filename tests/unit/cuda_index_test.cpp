// SPDX-License-Identifier: Apache-2.0
// Reading and writing by position on a GPU against the CPU: sizes and layouts that take each of the kernels' ways.
// Without a GPU the device is one that the host plays (tests/cuda/emulated).
#include <doctest/doctest.h>

#include <loom/accelerators/cuda.h>

#include "device_array.h"

using namespace loom;
using kernel_test::Array;
using kernel_test::DeviceArray;
using kernel_test::Layout;

namespace {

struct Shapes {
  Dims table, list;
  int dim;
};

// Whole numbers, so that sums have one result in whatever order.
Array numbers(DType t, const Dims& shape, Layout layout, int64_t below) {
  Array out(t, shape, layout);
  for (int64_t i = 0; i < shape.numel(); ++i)
    kernel_test::set(out.view, i, static_cast<double>((i * 7919 + i / 3) % below));
  return out;
}

Array indices(const Dims& shape, Layout layout, int64_t extent, int64_t distinct) {
  Array out(i64, shape, layout);
  for (int64_t i = 0; i < shape.numel(); ++i)
    kernel_test::set(out.view, i, static_cast<double>((i * 31 + i / 7) % std::min(extent, distinct)));
  return out;
}

// f(accelerator, y, x, index) on both devices; y's memory is compared.
template <class F>
void compare(const char* what, const Array& y, const Array& x, const Array& index, const F& f) {
  const DeviceArray there(y), from(x), at(index);
  f(accelerator(Device::cuda), there, from, at);
  accelerator(Device::cuda).synchronize();
  Array given(y.view.dtype, {0});
  given.memory = y.memory;
  there.fetch(given);
  f(accelerator(Device::cpu), y, x, index);
  CHECK_MESSAGE(given.memory == y.memory, what, " ", to_string(y.view.dtype), " ", to_string(y.view.shape), " from ",
                to_string(x.view.shape), " along ", to_string(index.view.shape));
}

void compare_all(const Shapes& s, DType t, Layout layout, int64_t distinct) {
  const int64_t extent = s.table[s.dim], n = s.list[s.dim];
  const Array table = numbers(t, s.table, layout, 50), list = numbers(t, s.list, layout, 3);
  const Array lines = indices({n}, layout, extent, distinct), all = indices(s.list, layout, extent, distinct);
  const int dim = s.dim;
  compare("index_select", Array(t, s.list, layout), table, lines,
          [&](Accelerator& a, const View& y, const View& x, const View& index) { a.index_select(y, x, index, dim); });
  compare("gather", Array(t, s.list, layout), table, all,
          [&](Accelerator& a, const View& y, const View& x, const View& index) { a.gather(y, x, index, dim); });
  compare("scatter", numbers(t, s.table, layout, 50), list, all,
          [&](Accelerator& a, auto& y, auto& x, auto& index) { a.scatter(Scatter::assign, y, x, index, dim); });
  if (t == boolean) return;
  compare("scatter_add", numbers(t, s.table, layout, 50), list, all,
          [&](Accelerator& a, auto& y, auto& x, auto& index) { a.scatter(Scatter::add, y, x, index, dim); });
  compare("index_add", numbers(t, s.table, layout, 50), list, lines,
          [&](Accelerator& a, auto& y, auto& x, auto& index) { a.index_add(y, x, index, dim); });
}

std::string text_of(const auto& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("indexing on a GPU gives what it gives on the CPU") {
  if (device_count(Device::cuda) == 0) {
    MESSAGE("skipped: " << cuda_description());
    return;
  }
  const Shapes shapes[] = {
      {{5, 3}, {4, 3}, 0},         {{3, 5}, {3, 40}, 1},        {{9, 16}, {40, 16}, 0},
      {{9, 24}, {33, 24}, 0},      {{2, 7, 8}, {2, 50, 8}, 1},  {{2, 3, 300}, {2, 35, 300}, 1},
      {{300}, {1000}, 0},          {{40, 2, 3}, {70, 2, 3}, 0}, {{4, 600}, {4, 1}, 1},
      {{3, 2, 600}, {3, 2, 5}, 2}, {{6, 513}, {100, 513}, 0},   {{1, 4}, {100, 4}, 0},
  };
  for (const Shapes& s : shapes)
    for (const Layout layout : kernel_test::layouts)
      for (int t = 0; t < dtype_count; ++t)
        for (const int64_t distinct : {1, 4, 1000}) compare_all(s, static_cast<DType>(t), layout, distinct);
}

TEST_CASE("many additions to few places on a GPU") {
  if (device_count(Device::cuda) == 0) {
    MESSAGE("skipped: " << cuda_description());
    return;
  }
  for (const DType t : {f64, f32, i64})
    for (const int64_t distinct : {1, 2, 1000}) {
      compare_all({{1000, 6}, {5000, 6}, 0}, t, Layout::dense, distinct);
      compare_all({{70000, 2}, {70000, 2}, 1}, t, Layout::dense, 2);
    }
}

TEST_CASE("an index that is out of range on a GPU is told of when the host waits") {
  if (device_count(Device::cuda) == 0) {
    MESSAGE("skipped: " << cuda_description());
    return;
  }
  for (const int64_t wrong : {int64_t{5}, int64_t{-1}}) {
    const Array table = numbers(f32, {2, 5}, Layout::dense, 9), list = numbers(f32, {2, 3}, Layout::dense, 9);
    const Array all = indices({2, 3}, Layout::dense, 5, 5), lines = indices({3}, Layout::dense, 5, 5);
    kernel_test::set(all.view, 4, static_cast<double>(wrong));
    kernel_test::set(lines.view, 1, static_cast<double>(wrong));
    const auto on = [&](Device device, const auto& f) {
      Accelerator& a = accelerator(device);
      if (device.kind == Device::cpu) return text_of([&] { f(a, table.view, list.view, all.view, lines.view); });
      const DeviceArray y(table), x(list), index(all), line(lines);
      f(a, y, x, index, line);
      return text_of([&] { a.synchronize(); });
    };
    const auto compare = [&](const auto& f) {
      const std::string expected = on(Device::cpu, f);
      CHECK(!expected.empty());
      CHECK(on(Device::cuda, f) == expected);
    };
    using A = Accelerator;
    using V = View;
    compare([](A& a, const V& y, const V& x, const V&, const V& line) { a.index_select(x, y, line, 1); });
    compare([](A& a, const V& y, const V& x, const V&, const V& line) { a.index_add(y, x, line, 1); });
    compare([](A& a, const V& y, const V& x, const V& index, const V&) { a.gather(x, y, index, 1); });
    compare([](A& a, const V& y, const V& x, const V& i, const V&) { a.scatter(Scatter::assign, y, x, i, 1); });
    compare([](A& a, const V& y, const V& x, const V& i, const V&) { a.scatter(Scatter::add, y, x, i, 1); });
  }
}
