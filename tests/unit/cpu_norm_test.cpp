// SPDX-License-Identifier: Apache-2.0
#include "kernel_test.h"

using namespace kernel_test;

namespace {

using Values = std::vector<double>;

DType statistics_dtype(DType t) { return t == DType::f64 ? DType::f64 : DType::f32; }

// Normalisation over groups of elements, in double: group_of and parameter_of map an element to its statistics and to
// its weight. All gradients go through the statistics unless they are given.
struct Normalised {
  Values mean, var, y, dx, dw, db;
};
template <class Group, class Parameter>
Normalised reference(const View& x, const View& dy, const View& w, const View& b, double eps, bool rms, int64_t groups,
                     int64_t parameters, const Group& group_of, const Parameter& parameter_of,
                     const Normalised* given) {
  const int64_t n = x.numel();
  Normalised out;
  Values sum_h(static_cast<size_t>(groups), 0.0), sum_hx = sum_h, count = sum_h;
  out.mean = out.var = sum_h;
  out.dw = out.db = Values(static_cast<size_t>(parameters), 0.0);
  const auto g = [&](int64_t i) { return static_cast<size_t>(group_of(i)); };
  const auto weight = [&](int64_t i) { return w.data != nullptr ? get(w, parameter_of(i)) : 1.0; };
  for (int64_t i = 0; i < n; ++i) count[g(i)] += 1;
  if (!rms)
    for (int64_t i = 0; i < n; ++i) out.mean[g(i)] += get(x, i) / count[g(i)];
  for (int64_t i = 0; i < n; ++i) out.var[g(i)] += std::pow(get(x, i) - out.mean[g(i)], 2) / count[g(i)];
  if (given != nullptr) out.mean = given->mean, out.var = given->var;
  const auto rstd = [&](int64_t i) { return 1 / std::sqrt(out.var[g(i)] + eps); };
  const auto hat = [&](int64_t i) { return (get(x, i) - out.mean[g(i)]) * rstd(i); };
  for (int64_t i = 0; i < n; ++i) {
    const auto p = static_cast<size_t>(parameter_of(i));
    out.y.push_back(hat(i) * weight(i) + (b.data != nullptr ? get(b, parameter_of(i)) : 0));
    out.dw[p] += get(dy, i) * hat(i);
    out.db[p] += get(dy, i);
    sum_h[g(i)] += get(dy, i) * weight(i);
    sum_hx[g(i)] += get(dy, i) * weight(i) * hat(i);
  }
  for (int64_t i = 0; i < n; ++i) {
    const double through = given != nullptr ? 0 : ((rms ? 0 : sum_h[g(i)]) + hat(i) * sum_hx[g(i)]) / count[g(i)];
    out.dx.push_back(rstd(i) * (get(dy, i) * weight(i) - through));
  }
  return out;
}

void check_layer_norm(DType t, int64_t rows, int64_t n, bool affine, bool rms, Layout layout, double offset = 0) {
  CAPTURE(to_string(t));
  CAPTURE(rows);
  CAPTURE(n);
  CAPTURE(rms);
  const Array x = random(t, {rows, n}, layout, offset - 2, offset + 2), dy = random(t, {rows, n}, layout);
  const Array weight = random(t, {n}), bias = random(t, {n});
  const View w = affine ? weight.view : without(), b = affine && !rms ? bias.view : without();
  const Normalised expected = reference(
      x, dy, w, b, 1e-5, rms, rows, n, [=](int64_t i) { return i / n; }, [=](int64_t i) { return i % n; }, nullptr);
  const DType s = statistics_dtype(t);
  const Array y(t, {rows, n}, layout), mean(s, {rows}), rstd(s, {rows}), dx(t, {rows, n}, layout), dw(t, {n}),
      db(t, {n});
  cpu_accelerator().layer_norm(y, rms ? without() : mean.view, rstd, x, w, b, 1e-5, rms);
  Values scales;
  for (const double v : expected.var) scales.push_back(1 / std::sqrt(v + 1e-5));
  const double eps = epsilon(t), eps_s = epsilon(s);
  check_close(rstd, scales, 16 * eps_s * (1 + offset));
  if (!rms) check_close(mean, expected.mean, 8 * eps_s);
  check_close(y, expected.y, 16 * eps + 8 * eps_s * offset);
  if (offset != 0 || n == 1) return;  // one element: x - mean is rounding noise in the reference too
  cpu_accelerator().layer_norm_grad(dx, dw, db, dy, x, w, rms ? without() : mean.view, rstd, rms);
  check_close(dx, expected.dx, 64 * eps);
  const double eps_sum = 4 * epsilon(DType::f64) * std::sqrt(static_cast<double>(n));  // of the reference's statistics
  check_close(dw, expected.dw, 8 * eps * std::sqrt(static_cast<double>(rows)) + eps_sum);
  check_close(db, expected.db, 8 * eps * std::sqrt(static_cast<double>(rows)));
  const Array only(t, {n}), nothing(t, {rows, n});
  cpu_accelerator().layer_norm_grad(without(), only, without(), dy, x, w, rms ? without() : mean.view, rstd, rms);
  CHECK(values(only) == values(dw));
  cpu_accelerator().layer_norm_grad(nothing, without(), without(), dy, x, w, rms ? without() : mean.view, rstd, rms);
  CHECK(values(nothing) == values(dx));
}

// Rows are groups of channels; each channel, `spread` neighbours of a row, has its weight.
void check_group_norm(DType t, int64_t samples, int64_t channels, int64_t groups, int64_t spread, Layout layout) {
  CAPTURE(to_string(t));
  CAPTURE(channels);
  CAPTURE(spread);
  const int64_t rows = samples * groups, n = channels / groups * spread;
  const Array x = random(t, {rows, n}, layout, -1, 3), dy = random(t, {rows, n}, layout);
  const Array w = random(t, {channels}), b = random(t, {channels});
  const Normalised expected = reference(
      x, dy, w, b, 1e-5, false, rows, channels, [=](int64_t i) { return i / n; },
      [=](int64_t i) { return i / spread % channels; }, nullptr);
  const DType s = statistics_dtype(t);
  const Array y(t, {rows, n}, layout), mean(s, {rows}), rstd(s, {rows}), dx(t, {rows, n}, layout), dw(t, {channels}),
      db(t, {channels});
  cpu_accelerator().layer_norm(y, mean, rstd, x, w, b, 1e-5, false, spread);
  const double eps_row = 4 * epsilon(DType::f64) * std::sqrt(static_cast<double>(n));  // the reference adds one by one
  check_close(y, expected.y, 16 * epsilon(t) + eps_row);
  cpu_accelerator().layer_norm_grad(dx, dw, db, dy, x, w, mean, rstd, false, spread);
  const double root = std::sqrt(static_cast<double>(samples * spread)), eps_sum = 4 * epsilon(DType::f64) * root;
  check_close(dx, expected.dx, 64 * epsilon(t) + eps_row);
  check_close(dw, expected.dw, 16 * epsilon(t) * root + eps_sum);
  check_close(db, expected.db, 16 * epsilon(t) * root + eps_sum);
  const Array only(t, {rows, n}), bias_alone(t, {channels});
  cpu_accelerator().layer_norm_grad(only, without(), bias_alone, dy, x, w, mean, rstd, false, spread);
  CHECK(values(only) == values(dx));
  CHECK(values(bias_alone) == values(db));
}

void check_batch_norm(DType t, const Dims& shape, bool affine, bool training, Layout layout) {
  CAPTURE(to_string(t));
  CAPTURE(to_string(shape));
  CAPTURE(training);
  const int64_t c = shape[1], l = shape[2];
  const DType s = statistics_dtype(t);
  const Array x = random(t, shape, layout, -1, 3), dy = random(t, shape, layout), weight = random(s, {c}),
              bias = random(s, {c});
  const Array mean(s, {c}), var(s, {c}), y(t, shape, layout), dx(t, shape, layout), dw(s, {c}), db(s, {c});
  const View w = affine ? weight.view : without(), b = affine ? bias.view : without();
  const auto channel = [=](int64_t i) { return i / l % c; };
  const Normalised batch = reference(x, dy, w, b, 1e-3, false, c, c, channel, channel, nullptr);
  const double eps_s = epsilon(s);
  cpu_accelerator().batch_statistics(mean, var, x);
  const double root = std::sqrt(static_cast<double>(shape[0] * l));
  const double eps_sum = 4 * epsilon(DType::f64) * root;  // the reference adds up one by one in double
  check_close(mean, batch.mean, 8 * eps_s + eps_sum);
  check_close(var, batch.var, 8 * eps_s + eps_sum);
  if (!training)
    for (int64_t i = 0; i < c; ++i) set(mean.view, i, 0.5), set(var.view, i, 0.25 + static_cast<double>(i));
  const Normalised given{values(mean), values(var), {}, {}, {}, {}};
  const Normalised expected = reference(x, dy, w, b, 1e-3, false, c, c, channel, channel, training ? nullptr : &given);
  cpu_accelerator().batch_norm(y, x, mean, var, w, b, 1e-3);
  cpu_accelerator().batch_norm_grad(dx, dw, db, dy, x, mean, var, w, 1e-3, training);
  check_close(y, expected.y, 32 * epsilon(t) + eps_sum);
  if (training && shape[0] * l == 1) return;  // a variance of zero: gradients are noise divided by eps
  check_close(dx, expected.dx, 128 * epsilon(t) + eps_sum);
  check_close(dw, expected.dw, 16 * eps_s * root);
  check_close(db, expected.db, 16 * eps_s * root);
  const Array only(t, shape);
  cpu_accelerator().batch_norm_grad(only, without(), without(), dy, x, mean, var, w, 1e-3, training);
  CHECK(values(only) == values(dx));
  cpu_accelerator().batch_norm_grad(without(), dw, db, dy, x, mean, var, w, 1e-3, training);
  check_close(dw, expected.dw, 16 * eps_s * root);
}

// relu(batch_norm + added), against batch_norm's own reference: dy counts where the result is positive.
void check_batch_norm_relu(DType t, const Dims& shape, bool adds, bool training, Layout layout) {
  CAPTURE(to_string(t));
  CAPTURE(to_string(shape));
  CAPTURE(adds);
  CAPTURE(training);
  const int64_t c = shape[1], l = shape[2];
  const DType s = statistics_dtype(t);
  const Array x = random(t, shape, layout, -1, 3), dy = random(t, shape, layout), beside = random(t, shape, layout),
              w = random(s, {c}), b = random(s, {c}), mean = random(s, {c}), var = random(s, {c}, Layout::dense, 1, 2);
  const View added = adds ? beside.view : without();
  const Array y(t, shape, layout), dx(t, shape, layout), kept(t, shape, layout), dw(s, {c}), db(s, {c});
  Accelerator& cpu = cpu_accelerator();
  if (training) cpu.batch_statistics(mean, var, x);
  const auto channel = [=](int64_t i) { return i / l % c; };
  const Normalised given{values(mean), values(var), {}, {}, {}, {}};
  const Normalised* const fixed = training ? nullptr : &given;
  Values result = reference(x, dy, w, b, 1e-3, false, c, c, channel, channel, fixed).y;
  for (size_t i = 0; i < result.size(); ++i)
    result[i] = std::max(0.0, result[i] + (adds ? get(beside, static_cast<int64_t>(i)) : 0));
  const double eps_s = epsilon(s), root = std::sqrt(static_cast<double>(shape[0] * l));
  const double eps_sum = 4 * epsilon(DType::f64) * root;
  cpu.batch_norm_relu(y, x, added, mean, var, w, b, 1e-3);
  check_close(y, result, 32 * epsilon(t) + eps_sum);

  cpu.batch_norm_relu_grad(dx, adds ? kept.view : without(), dw, db, dy, y, x, mean, var, w, 1e-3, training);
  const Array masked(t, shape);
  for (int64_t i = 0; i < x.view.numel(); ++i) set(masked.view, i, get(y, i) > 0 ? get(dy, i) : 0);
  const Normalised expected = reference(x, masked, w, b, 1e-3, false, c, c, channel, channel, fixed);
  if (adds) CHECK(values(kept) == values(masked));
  check_close(dx, expected.dx, 128 * epsilon(t) + eps_sum);
  check_close(dw, expected.dw, 16 * eps_s * root);
  check_close(db, expected.db, 16 * eps_s * root);
  if (!adds) return;
  const Array only(t, shape);  // of what was added alone
  cpu.batch_norm_relu_grad(without(), only, without(), without(), dy, y, x, mean, var, w, 1e-3, training);
  CHECK(values(only) == values(masked));
}

}  // namespace

TEST_CASE("layer_norm and rms_norm: forward and gradients") {
  for (const DType t : floating)
    for (const Layout layout : layouts)
      for (const Dims& s : {Dims{1, 7}, Dims{5, 1}, Dims{3, 64}, Dims{70, 33}, Dims{600, 20}, Dims{2, 1500}})
        for (const bool affine : {false, true})
          for (const bool rms : {false, true}) check_layer_norm(t, s[0], s[1], affine, rms, layout);
}

TEST_CASE("layer_norm: a mean of 1e4 leaves the variance whole") {
  for (const int64_t n : {9, 64, 5000}) check_layer_norm(DType::f32, 3, n, true, false, Layout::dense, 1e4);
}

TEST_CASE("layer_norm: a first element far from all others leaves the variance whole") {
  for (const int64_t n : {70, 5000}) {
    const Array x = random(DType::f32, {1, n}), y(DType::f32, {1, n}), mean(DType::f32, {1}), rstd(DType::f32, {1});
    set(x.view, 0, 1000);
    const Normalised expected = reference(
        x, x, without(), without(), 1e-5, false, 1, n, [](int64_t) { return 0; }, [](int64_t i) { return i; }, nullptr);
    cpu_accelerator().layer_norm(y, mean, rstd, x, without(), without(), 1e-5, false, 1);
    check_close(y, expected.y, 1e-5);
  }
}

TEST_CASE("layer_norm over groups of channels: forward and gradients") {
  for (const DType t : floating)
    for (const Layout layout : layouts) {
      check_group_norm(t, 3, 4, 2, 5, layout);
      check_group_norm(t, 40, 24, 3, 1, layout);
      check_group_norm(t, 2, 3, 3, 70, layout);
      check_group_norm(t, 2, 8, 1, 521, layout);  // more than a piece of a row
    }
}

TEST_CASE("layer_norm: no rows give zero parameter gradients") {
  const Array x(DType::f32, {0, 4}), none(DType::f32, {0}), dw(DType::f32, {4}), db(DType::f32, {4});
  cpu_accelerator().layer_norm(x, none, none, x, without(), without(), 1e-5, false);
  cpu_accelerator().layer_norm_grad(x, dw, db, x, x, without(), none, none, false);
  check_close(dw, {0, 0, 0, 0}, 0);
  check_close(db, {0, 0, 0, 0}, 0);
}

TEST_CASE("layer_norm: gradients have the same bits on any number of threads") {
  const Array x = random(DType::f32, {2000, 48}), dy = random(DType::f32, {2000, 48}), w = random(DType::f32, {48});
  const Array y(DType::f32, {2000, 48}), mean(DType::f32, {2000}), rstd(DType::f32, {2000});
  cpu_accelerator().layer_norm(y, mean, rstd, x, w, without(), 1e-5, false);
  Values first;
  for (const int threads : {1, 2, 3}) {
    const Threads scope(threads);
    const Array dx(DType::f32, {2000, 48}), dw(DType::f32, {48}), db(DType::f32, {48});
    cpu_accelerator().layer_norm_grad(dx, dw, db, dy, x, w, mean, rstd, false);
    if (first.empty()) first = values(dw);
    CHECK(values(dw) == first);
  }
}

TEST_CASE("batch_norm: statistics, forward and gradients, training and evaluation") {
  for (const DType t : floating)
    for (const Layout layout : layouts)
      for (const Dims& s : {Dims{1, 1, 1}, Dims{6, 5, 1}, Dims{4, 3, 5}, Dims{3, 4, 49}, Dims{2, 70, 20},
                            Dims{100, 33, 1}, Dims{2, 2, 4500}, Dims{70, 2, 65}})
        for (const bool affine : {false, true})
          for (const bool training : {false, true}) check_batch_norm(t, s, affine, training, layout);
}

TEST_CASE("batch_norm_relu: forward and gradients, training and evaluation") {
  for (const DType t : floating)
    for (const Layout layout : layouts)
      for (const Dims& s : {Dims{6, 5, 1}, Dims{4, 3, 5}, Dims{3, 4, 49}, Dims{2, 70, 20}, Dims{2, 2, 4500}})
        for (const bool adds : {false, true})
          for (const bool training : {false, true}) check_batch_norm_relu(t, s, adds, training, layout);
}

TEST_CASE("batch_norm_relu: what is not a number stays, and lets its gradient pass") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Array x = random(DType::f32, {2, 3, 37}), beside = random(DType::f32, {2, 3, 37}),
              dy = random(DType::f32, {2, 3, 37}), mean(DType::f32, {3}), var(DType::f32, {3}),
              y(DType::f32, {2, 3, 37}), kept(DType::f32, {2, 3, 37});
  for (int64_t i = 0; i < 3; ++i) set(mean.view, i, 0), set(var.view, i, 1);
  set(x.view, 3, nan);
  set(beside.view, 70, nan);
  cpu_accelerator().batch_norm_relu(y, x, beside, mean, var, without(), without(), 1e-5);
  for (int64_t i = 0; i < y.view.numel(); ++i) CHECK(std::isnan(get(y, i)) == (i == 3 || i == 70));
  cpu_accelerator().batch_norm_relu_grad(without(), kept, without(), without(), dy, y, x, mean, var, without(), 1e-5,
                                         false);
  for (const int64_t i : {3, 70}) CHECK(get(kept, i) == get(dy, i));
}

TEST_CASE("batch_statistics: a mean of 1e4 leaves the variance whole") {
  for (const Dims& shape : {Dims{8, 3, 700}, Dims{3, 3, 5000}, Dims{4000, 3, 1}}) {
    const Array x = random(DType::f32, shape, Layout::dense, 1e4 - 1, 1e4 + 1), mean(DType::f32, {3}),
                var(DType::f32, {3});
    cpu_accelerator().batch_statistics(mean, var, x);
    const View none = without();
    const int64_t l = shape[2];
    const auto channel = [=](int64_t i) { return i / l % 3; };
    const Normalised expected = reference(x, x, none, none, 1e-5, false, 3, 3, channel, channel, nullptr);
    check_close(mean, expected.mean, 1e-6);
    check_close(var, expected.var, 1e-6);
  }
}

TEST_CASE("batch_statistics: of a channel that holds what is not a number both are none, of others they are") {
  for (const Dims& shape : {Dims{8, 3, 700}, Dims{2, 3, 5}, Dims{4000, 3, 1}})
    for (const double value : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
      const Array x = random(DType::f32, shape), mean(DType::f32, {3}), var(DType::f32, {3});
      set(x, shape[2], value);
      cpu_accelerator().batch_statistics(mean, var, x);
      for (const int64_t c : {0, 1, 2}) {
        CHECK(std::isfinite(get(mean, c)) == (c != 1));
        CHECK(std::isnan(get(var, c)) == (c == 1));
      }
    }
}

TEST_CASE("norms: refuse integers") {
  const Array x(DType::i64, {2, 2}), s(DType::f32, {2}), x3(DType::i64, {2, 2, 1});
  Accelerator& cpu = cpu_accelerator();
  const char *const layer = "layer_norm: expects a floating dtype, got i64",
                    *const rms = "rms_norm: expects a floating dtype, got i64",
                    *const batch = "batch_norm: expects a floating dtype, got i64";
  CHECK_THROWS_WITH_AS(cpu.layer_norm(x, s, s, x, without(), without(), 1e-5, false), layer, Error);
  CHECK_THROWS_WITH_AS(cpu.layer_norm(x, s, s, x, without(), without(), 1e-5, true), rms, Error);
  CHECK_THROWS_WITH_AS(cpu.layer_norm_grad(x, s, s, x, x, without(), s, s, false), layer, Error);
  CHECK_THROWS_WITH_AS(cpu.batch_statistics(s, s, x3), batch, Error);
  CHECK_THROWS_WITH_AS(cpu.batch_norm(x3, x3, s, s, without(), without(), 1e-5), batch, Error);
  CHECK_THROWS_WITH_AS(cpu.batch_norm_grad(x3, s, s, x3, x3, s, s, without(), 1e-5, true), batch, Error);
}
