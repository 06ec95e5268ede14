// SPDX-License-Identifier: Apache-2.0
#include "gemm_case.h"

using namespace kernel_test;

TEST_CASE("gemm: all dtypes, sizes and layouts") {
  const Dims sizes[] = {{1, 1, 1},  {3, 5, 7},     {17, 1, 33},  {1, 19, 5},
                        {1, 1, 40}, {64, 10, 128}, {33, 65, 31}, {5, 3, 1}};
  for (const DType t : floating)
    for (const Dims& s : sizes)
      for (const Layout a_layout : layouts)
        for (const Layout b_layout : layouts)
          for (const Layout c_layout : layouts) {
            CAPTURE(to_string(t));
            CAPTURE(to_string(s));
            CAPTURE(static_cast<int>(a_layout) * 100 + static_cast<int>(b_layout) * 10 + static_cast<int>(c_layout));
            const Array a = random(t, {s[0], s[2]}, a_layout), b = random(t, {s[2], s[1]}, b_layout);
            const Array c(t, {s[0], s[1]}, c_layout);
            check_gemm({.c = c, .a = a, .b = b, .bias = without()});
          }
}

TEST_CASE("gemm: alpha, beta and bias") {
  for (const DType t : floating)
    for (const double alpha : {1.0, -0.5, 0.0})
      for (const double beta : {0.0, 1.0, 0.25})
        for (const bool with_bias : {false, true})
          for (const Layout layout : layouts) {
            const Array a = random(t, {9, 6}), b = random(t, {6, 11}), bias = random(t, {11}, Layout::sliced);
            const Array c = beta == 0 ? Array(t, {9, 11}, layout) : random(t, {9, 11}, layout);
            check_gemm(
                {.c = c, .a = a, .b = b, .bias = with_bias ? bias.view : without(), .alpha = alpha, .beta = beta});
          }
}

TEST_CASE("gemm: a bias for each element") {
  for (const int threads : {1, 3}) {
    const Threads scope(threads);
    for (const DType t : floating)
      for (const Dims& s : {Dims{1, 1, 1}, Dims{9, 11, 6}, Dims{1, 40, 33}, Dims{40, 2, 33}, Dims{32, 130, 70},
                            Dims{150, 67, 90}, Dims{5, 18, 4099}})
        for (const Layout layout : layouts)
          for (const Layout bias_layout : layouts) {
            CAPTURE(to_string(t));
            CAPTURE(to_string(s));
            const Array a = random(t, {s[0], s[2]}), b = random(t, {s[2], s[1]}, layout);
            const Array bias = random(t, {s[0], s[1]}, bias_layout), c(t, {s[0], s[1]}, layout);
            check_gemm({.c = c, .a = a, .b = b, .bias = bias, .alpha = 0.5});
          }
    // Panels of columns, and batches that are one tall product.
    const Array a = random(DType::f32, {32, 40}), b = random(DType::f32, {2, 40, 64}), c(DType::f32, {32, 2, 64});
    const Array bias = random(DType::f32, {32, 2, 64});
    const auto panels = [](View x) {
      std::swap(x.shape[0], x.shape[1]);
      std::swap(x.strides[0], x.strides[1]);
      return x;
    };
    const auto twice = [](View x) {
      x.shape.insert(0, 2);
      x.strides.insert(0, 0);
      return x;
    };
    check_gemm({.c = panels(c), .a = twice(a), .b = b, .bias = panels(bias)});
    check_gemm({.c = panels(c), .a = twice(a), .b = b, .bias = twice(random(DType::f32, {32, 64}))});
    const Array tall = random(DType::f32, {2, 32, 40}), one = random(DType::f32, {40, 64}),
                out(DType::f32, {2, 32, 64});
    check_gemm({.c = out, .a = tall, .b = twice(one), .bias = random(DType::f32, {2, 32, 64})});
    check_gemm({.c = out, .a = tall, .b = twice(one), .bias = twice(random(DType::f32, {32, 64}))});
  }
}

TEST_CASE("gemm: panels of columns side by side") {
  const auto side_by_side = [](View x) {
    std::swap(x.shape[0], x.shape[1]);
    std::swap(x.strides[0], x.strides[1]);
    return x;
  };
  for (const int threads : {1, 3}) {
    const Threads scope(threads);
    for (const DType t : floating)
      for (const int64_t rows : {1, 4, 15, 130})  // few rows read panels as they lie
        for (const int64_t width : {32, 50})
          for (const int64_t k : {0, 40, 600}) {
            if (rows == 130 && (k == 600) != (t == DType::f32)) continue;  // the reference is slow
            CAPTURE(to_string(t));
            CAPTURE(rows);
            CAPTURE(width);
            CAPTURE(k);
            const Array a = random(t, {rows, k}), b = random(t, {3, k, width}), c = random(t, {rows, 3, width});
            const Array bias = random(t, {rows, 3, width});
            View each = a;
            each.shape.insert(0, 3);
            each.strides.insert(0, 0);
            check_gemm({.c = side_by_side(c), .a = each, .b = b, .bias = without(), .alpha = 0.5});
            check_gemm({.c = side_by_side(c), .a = each, .b = b, .bias = side_by_side(bias), .beta = 1});
          }
  }
}

TEST_CASE("gemm: rows that lie along k, more than a cache holds") {
  for (const DType t : {DType::f32, DType::f64, DType::bf16}) {
    const Array a = random(t, {300, 1100}), b = random(t, {1100, 40}), c(t, {300, 40});
    check_gemm({.c = c, .a = a, .b = b, .bias = without()});
    const Array columns = random(t, {700, 310}, Layout::transposed), d = random(t, {310, 40}), e = random(t, {700, 40});
    check_gemm({.c = e, .a = columns, .b = d, .bias = without(), .beta = 1});
  }
}

TEST_CASE("gemm: few rows or columns of operands that both lie along k") {
  for (const int threads : {1, 3}) {
    const Threads scope(threads);
    for (const DType t : {DType::f32, DType::f64, DType::bf16})
      for (const Dims& s : {Dims{64, 10, 128}, Dims{10, 64, 128}, Dims{33, 7, 131}, Dims{5, 24, 512}, Dims{24, 5, 1000},
                            Dims{4, 4, 129}, Dims{17, 9, 143}, Dims{300, 10, 300}, Dims{24, 25, 160}, Dims{37, 5, 70},
                            Dims{9, 12, 37}, Dims{4, 5, 32773}, Dims{20, 3, 45}})
        for (const double beta : {0.0, 0.25})
          for (const Layout layout : layouts) {
            CAPTURE(to_string(t));
            CAPTURE(to_string(s));
            const Array a = random(t, {s[0], s[2]}), b = random(t, {s[2], s[1]}, Layout::transposed);
            const Array c = beta == 0 ? Array(t, {s[0], s[1]}, layout) : random(t, {s[0], s[1]}, layout);
            const Array bias = random(t, {s[1]}), each = random(t, {s[0], s[1]}, layout);
            check_gemm({.c = c, .a = a, .b = b, .bias = beta == 0 ? bias.view : without(), .alpha = 0.5, .beta = beta});
            check_gemm({.c = c, .a = a, .b = b, .bias = each});
          }
  }
}

TEST_CASE("gemm: products of 16-bit matrices in f32") {
  for (const int threads : {1, 3}) {
    const Threads scope(threads);
    for (const DType t : {DType::f16, DType::bf16})
      for (const Dims& s : {Dims{9, 11, 7}, Dims{1, 40, 33}, Dims{40, 1, 33}, Dims{3, 17, 50}, Dims{33, 65, 31},
                            Dims{150, 67, 90}, Dims{61, 201, 90}, Dims{5, 18, 4099}})
        for (const double beta : {0.0, 1.0, 0.25})
          for (const Layout layout : layouts) {
            CAPTURE(to_string(t));
            CAPTURE(to_string(s));
            const Array a = random(t, {s[0], s[2]}, layout), b = random(t, {s[2], s[1]}, layout);
            const Array bias = random(DType::f32, {s[1]});
            const Array c =
                beta == 0 ? Array(DType::f32, {s[0], s[1]}, layout) : random(DType::f32, {s[0], s[1]}, layout);
            check_gemm({.c = c, .a = a, .b = b, .bias = beta == 1 ? without() : bias.view, .alpha = 0.5, .beta = beta});
          }
  }
  const Array a(DType::bf16, {4, 0}), b(DType::bf16, {0, 3}), c = random(DType::f32, {4, 3});
  check_gemm({.c = c, .a = a, .b = b, .bias = without(), .beta = 0.5});
}

TEST_CASE("gemm: empty extents") {
  for (const DType t : floating) {
    const Array a(t, {4, 0}), b(t, {0, 3}), bias = random(t, {3}), c = random(t, {4, 3});
    check_gemm({.c = c, .a = a, .b = b, .bias = bias, .beta = 0.5});  // K = 0: beta * c + bias
    check_gemm({.c = c, .a = a, .b = b, .bias = without()});
    check_gemm({.c = Array(t, {0, 3}), .a = Array(t, {0, 2}), .b = Array(t, {2, 3}), .bias = without()});
    check_gemm({.c = Array(t, {2, 0, 3}), .a = Array(t, {2, 0, 2}), .b = Array(t, {2, 2, 3}), .bias = without()});
    check_gemm({.c = Array(t, {0, 4, 3}), .a = Array(t, {0, 4, 2}), .b = Array(t, {0, 2, 3}), .bias = without()});
  }
}

TEST_CASE("gemm: batches, broadcast by stride 0 and merged where they can be") {
  const auto repeat = [](View x, int dim, int64_t extent) {
    x.shape[dim] = extent;
    x.strides[dim] = 0;
    return x;
  };
  for (const DType t : floating)
    for (const Layout layout : layouts) {
      const Array a = random(t, {2, 3, 5, 4}, layout), b = random(t, {2, 3, 4, 6}, layout);
      const Array bias = random(t, {6}), c(t, {2, 3, 5, 6}, layout);
      check_gemm({.c = c, .a = a, .b = b, .bias = bias});
      const Array shared = random(t, {1, 1, 4, 6}, layout), inner = random(t, {2, 1, 4, 6}, layout);
      check_gemm({.c = c, .a = a, .b = repeat(repeat(shared, 0, 2), 1, 3), .bias = bias});
      check_gemm({.c = c, .a = a, .b = repeat(inner, 1, 3), .bias = without()});
      check_gemm({.c = c, .a = repeat(random(t, {1, 3, 5, 4}, layout), 0, 2), .b = b, .bias = without()});
      const Array vectors = random(t, {7, 1, 4}, layout), out(t, {7, 1, 6}, layout);
      check_gemm({.c = out, .a = vectors, .b = repeat(random(t, {1, 4, 6}, layout), 0, 7), .bias = bias});
    }
}

TEST_CASE("gemm: a repeated row or element (stride 0 within the matrix)") {
  for (const DType t : floating) {
    const Array row = random(t, {1, 8}), one = random(t, {1, 1}), b = random(t, {8, 5});
    View rows = row.view, all = one.view;
    rows.shape[0] = 6;
    rows.strides[0] = 0;
    all.shape = {6, 8};
    all.strides = {0, 0};
    check_gemm({.c = Array(t, {6, 5}), .a = rows, .b = b, .bias = without()});
    check_gemm({.c = Array(t, {6, 5}), .a = all, .b = b, .bias = without()});
  }
}

TEST_CASE("gemm: slabs on several threads give the same product") {
  for (const int threads : {1, 2, 3}) {
    const Threads scope(threads);
    for (const DType t : {DType::f32, DType::f64, DType::bf16}) {
      for (const Dims& s : {Dims{150, 67, 90}, Dims{61, 201, 90}, Dims{1, 3001, 80}, Dims{3001, 1, 80}}) {
        const Array a = random(t, {s[0], s[2]}, Layout::transposed), b = random(t, {s[2], s[1]}),
                    bias = random(t, {s[1]});
        check_gemm({.c = Array(t, {s[0], s[1]}), .a = a, .b = b, .bias = bias});
      }
      for (const int64_t batch : {2, 5, 40}) {
        const Array a = random(t, {batch, 37, 50}), b = random(t, {batch, 50, 41}, Layout::transposed);
        check_gemm({.c = Array(t, {batch, 37, 41}), .a = a, .b = b, .bias = random(t, {41})});
      }
    }
  }
}

TEST_CASE("gemm: sizes around the edges of tiles, panels and vectors") {
  for (const DType t : floating)
    for (const int64_t m : {2, 4, 6, 7, 13, 14, 15, 29})
      for (const int64_t n : {2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65})
        for (const Layout layout : layouts) {
          CAPTURE(m);
          CAPTURE(n);
          const Array a = random(t, {m, 19}, layout), b = random(t, {19, n}, layout), bias = random(t, {n});
          check_gemm({.c = Array(t, {m, n}), .a = a, .b = b, .bias = bias});
        }
}

TEST_CASE("gemm: little depth") {
  for (const DType t : floating)
    for (const int64_t k : {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 21, 23, 24, 25})
      for (const auto& [m, n] : {std::pair<int64_t, int64_t>{8, 70}, {9, 33}, {40, 7}, {33, 16}})
        for (const Layout a_layout : layouts)
          for (const Layout b_layout : layouts) {
            CAPTURE(to_string(t));
            CAPTURE(k);
            CAPTURE(n);
            const Array a = random(t, {m, k}, a_layout), b = random(t, {k, n}, b_layout);
            const Array bias = random(t, {n}), each = random(t, {m, n}), c = random(t, {m, n}, a_layout);
            check_gemm({.c = c, .a = a, .b = b, .bias = bias});
            check_gemm({.c = c, .a = a, .b = b, .bias = without(), .alpha = 0.5, .beta = -1});
            check_gemm({.c = Array(t, {m, n}), .a = a, .b = b, .bias = each, .alpha = 2});
          }
}

TEST_CASE("gemm: sizes around the blocks of rows, columns and k") {
  // Blocks of k: 512 in f64, 1024 in f32, 2048 in bf16 pairs.
  for (const DType t : floating)
    for (const Layout layout : layouts) {
      for (const int64_t k : {511, 512, 513, 1023, 1024, 1025, 2047, 2048, 2049, 4097})
        for (const double beta : {0.0, 1.0}) {
          CAPTURE(k);
          const Array a = random(t, {5, k}, layout), b = random(t, {k, 18}, layout), bias = random(t, {18});
          const Array c = beta == 0 ? Array(t, {5, 18}) : random(t, {5, 18});
          check_gemm({.c = c, .a = a, .b = b, .bias = beta == 0 ? bias.view : without(), .beta = beta});
          if (k % 2 == 1) check_gemm({.c = random(t, {5, 18}, layout), .a = a, .b = b, .bias = bias, .beta = 0.5});
        }
      for (const int64_t m : {139, 141, 300}) {  // b packed or not, several blocks of a
        const Array a = random(t, {m, 70}, layout), b = random(t, {70, 40}, layout);
        check_gemm({.c = Array(t, {m, 40}), .a = a, .b = b, .bias = without()});
      }
      const Array a = random(t, {3, 5}, layout), b = random(t, {5, 600}, layout), c(t, {3, 600}, layout);
      check_gemm({.c = c, .a = a, .b = b, .bias = without()});
      // Rows of a copied one by one, as many panels read them or as they would evict one another; short blocks of k.
      for (const Dims& s : {Dims{33, 301, 71}, Dims{40, 19, 1024}, Dims{150, 37, 512}, Dims{31, 40, 777}}) {
        CAPTURE(to_string(s));
        const Array rows = random(t, {s[0], s[2]}, layout), columns = random(t, {s[2], s[1]});
        check_gemm({.c = random(t, {s[0], s[1]}), .a = rows, .b = columns, .bias = without(), .beta = 0.5});
      }
    }
}

TEST_CASE("gemm: panels packed one by one or before, rows in one go or several, by one thread or more") {
  struct Case {
    Dims size;
    Layout a, b;
  };
  const auto plain = Layout::dense, turned = Layout::transposed;
  for (const auto& [s, a_layout, b_layout] :
       {Case{{150, 300, 300}, plain, turned}, Case{{150, 300, 300}, turned, plain}, Case{{420, 35, 512}, plain, plain},
        Case{{1024, 35, 40}, turned, plain}, Case{{150, 1024, 20}, plain, plain}, Case{{16, 300, 70}, plain, turned},
        Case{{420, 70, 520}, turned, turned}}) {
    CAPTURE(to_string(s));
    const Array a = random(DType::f32, {s[0], s[2]}, a_layout), b = random(DType::f32, {s[2], s[1]}, b_layout);
    const Array alone(DType::f32, {s[0], s[1]}), together(DType::f32, {s[0], s[1]});
    {
      const Threads scope(1);
      check_gemm({.c = alone, .a = a, .b = b, .bias = without()});
    }
    const Threads scope(3);
    cpu_accelerator().gemm({.c = together, .a = a, .b = b, .bias = without()});
    for (int64_t i = 0; i < alone.view.numel(); ++i) REQUIRE(get(alone, i) == get(together, i));
  }
}

TEST_CASE("gemm: vectors, whichever operand they are") {
  for (const DType t : floating)
    for (const Dims& s : {Dims{1, 130, 77}, Dims{130, 1, 77}, Dims{2, 9, 33}, Dims{9, 3, 33}, Dims{1, 1, 100}})
      for (const Layout a_layout : layouts)
        for (const Layout b_layout : layouts)
          for (const Layout c_layout : layouts) {
            const Array a = random(t, {s[0], s[2]}, a_layout), b = random(t, {s[2], s[1]}, b_layout);
            const Array bias = random(t, {s[1]}), c = random(t, {s[0], s[1]}, c_layout);
            check_gemm({.c = c, .a = a, .b = b, .bias = bias, .alpha = 0.5, .beta = -1});
          }
}

TEST_CASE("gemm: the same bits on any number of threads") {
  for (const DType t : floating)
    for (const Dims& s : {Dims{1, 150, 67, 90}, Dims{1, 61, 201, 90}, Dims{1, 1, 3001, 80}, Dims{1, 3001, 1, 80},
                          Dims{1, 40, 50, 2100}, Dims{1, 40, 600, 1100}, Dims{1, 300, 33, 300}, Dims{3, 60, 70, 80},
                          Dims{16, 20, 30, 40}, Dims{1, 300, 270, 10}, Dims{1, 130, 700, 9}})
      for (const Layout layout : layouts) {
        const Array a = random(t, {s[0], s[1], s[3]}, layout), b = random(t, {s[0], s[3], s[2]}, layout);
        const Array bias = random(t, {s[2]});
        std::vector<double> first;
        for (const int threads : {1, 2, 3, 4}) {
          const Threads scope(threads);
          const Array c(t, {s[0], s[1], s[2]});
          cpu_accelerator().gemm({.c = c, .a = a, .b = b, .bias = bias});
          if (threads == 1) first = values(c);
          CHECK(values(c) == first);
        }
      }
}

TEST_CASE("gemm: 16-bit products are summed in f32") {
  // 4096 terms of 1 + 2^-10: a sum kept in f16 would stop growing at 2048.
  const int64_t k = 4096;
  const Array a = array(DType::f16, {1, k}, std::vector<double>(k, 1.0)),
              b = array(DType::f16, {k, 1}, std::vector<double>(k, 1.0));
  const Array c(DType::f16, {1, 1});
  cpu_accelerator().gemm({.c = c, .a = a, .b = b, .bias = without()});
  CHECK(get(c, 0) == 4096);
}

TEST_CASE("gemm: sums of a million products lose few digits, whichever kernel takes them") {
  const int64_t k = 1 << 20;
  for (const auto& [m, n] : {std::pair<int64_t, int64_t>{1, 3}, {4, 5}, {20, 2}})
    for (const Layout layout : {Layout::dense, Layout::transposed}) {
      CAPTURE(m);
      CAPTURE(static_cast<int>(layout));
      const Array a = random(DType::f32, {m, k}, Layout::dense, 0.1, 0.1), c(DType::f32, {m, n}),
                  b = random(DType::f32, {k, n}, layout, 0.1, 0.1);
      cpu_accelerator().gemm({.c = c, .a = a, .b = b});
      const double one = static_cast<double>(0.1F) * static_cast<double>(0.1F);  // all round alike: the worst case
      for (int64_t i = 0; i < m * n; ++i) CHECK(get(c, i) == doctest::Approx(one * k).epsilon(1e-4));
    }
}

TEST_CASE("gemm: NaN and infinity pass through") {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  const Array a = array(DType::f32, {2, 2}, {inf, 1, nan, 1}), b = array(DType::f32, {2, 1}, {1, 1}),
              c(DType::f32, {2, 1});
  check_gemm({.c = c, .a = a, .b = b, .bias = without()});
}

TEST_CASE("gemm: NaN and infinity stay in their row and column") {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  for (const DType t : floating)
    for (const Layout layout : layouts)
      for (const Dims& s : {Dims{15, 18, 21}, Dims{1, 37, 21}, Dims{64, 33, 40}, Dims{15, 33, 9}, Dims{30, 18, 10}}) {
        const Array a = random(t, {s[0], s[2]}, layout), b = random(t, {s[2], s[1]}, layout);
        set(a.view, s[0] * s[2] - 1, nan);
        set(b.view, s[1] - 1, inf);
        check_gemm({.c = Array(t, {s[0], s[1]}), .a = a, .b = b, .bias = without()});
      }
}

TEST_CASE("gemm: refuses integers") {
  const Array a(DType::i64, {2, 2}), b(DType::i64, {2, 2}), c(DType::i64, {2, 2});
  CHECK_THROWS_WITH_AS(cpu_accelerator().gemm({.c = c, .a = a, .b = b, .bias = without()}),
                       "gemm: expects a floating dtype, got i64", Error);
}
