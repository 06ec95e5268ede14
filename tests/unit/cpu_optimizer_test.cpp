#include <deque>

#include <doctest/doctest.h>

#include <loom/accelerators/threads.h>

#include "array.h"

using namespace loom;
using namespace loom::testing;

namespace {

// p, g and up to three states: as the kernel sees them, and as plain doubles.
struct Problem {
  Problem(DType t, DType state, int64_t n)
      : p(t, {n}, scrambled),
        g(t, {n}),
        s0(state, {n}, zero),
        s1(state, {n}, zero),
        s2(state, {n}, zero),
        x(p.values()),
        a(p.values().size()),
        b(a),
        c(a) {}
  static double zero(int64_t) { return 0; }

  // A new gradient, other at each step.
  void next_gradient(int64_t step) {
    for (int64_t i = 0; i < g.numel(); ++i) g.set(i, scrambled(i * 3 + step * 17) / 8);
  }
  void check(double relative) const {
    for (int64_t i = 0; i < p.numel(); ++i)
      REQUIRE_MESSAGE(close(p[i], x[static_cast<size_t>(i)], relative), to_string(p.view().dtype), " at ", i);
  }

  Array p, g, s0, s1, s2;
  std::vector<double> x, a, b, c;
};

const View none{};

UpdatePiece update_of(const View& p, const View& g, int64_t step, std::array<View, 3> states = {}) {
  const auto dense = [](const View& x) { return Dense{x.data, x.dtype}; };
  return {p.numel(), dense(p), dense(g), {dense(states[0]), dense(states[1]), dense(states[2])}, step};
}

// Calls run with the one piece that all of q is.
template <class Run>
void step_of(const Problem& q, int64_t step, const std::array<View, 3>& states, const Run& run) {
  const UpdatePiece update = update_of(q.p, q.g, step, states);
  run(std::span(&update, 1));
}

// Runs five steps of `kernel` on arrays and of `formula` on doubles, for all dtypes and sizes. The formula takes one
// element: parameter, gradient, states, step.
template <class Kernel, class Formula>
void compare(const Kernel& kernel, const Formula& formula) {
  for (const DType t : floating_dtypes)
    for (const DType state : {f32, f64})
      for (const int64_t n : {0, 1, 7, 33, 1025, 40001}) {
        if (t == f64 && state == f32) continue;
        Problem q(t, state, n);
        for (int64_t step = 1; step <= 5; ++step) {
          q.next_gradient(step);
          kernel(q, step);
          for (size_t i = 0; i < q.x.size(); ++i)
            formula(q.x[i], q.g[static_cast<int64_t>(i)], q.a[i], q.b[i], q.c[i], step);
        }
        q.check(t == f64 ? 1e-12 : t == f32 ? 1e-5 : tolerance(t) * 6);
      }
}

}  // namespace

TEST_CASE("sgd") {
  for (const double momentum : {0.0, 0.9})
    for (const double dampening : {0.0, 0.3})
      for (const double decay : {0.0, 0.1})
        for (const bool nesterov : {false, true})
          for (const bool maximize : {false, true}) {
            if (nesterov && (momentum == 0 || dampening != 0)) continue;
            const double lr = 0.05;
            compare(
                [&](Problem& q, int64_t step) {
                  const SgdStep s{lr, momentum, dampening, decay, nesterov, maximize};
                  if (step == 1)
                    for (int64_t i = 0; i < q.s0.numel(); ++i) q.s0.set(i, std::nan(""));  // must not be read
                  step_of(q, step, {momentum == 0 ? none : q.s0}, [&](auto pieces) { cpu().sgd(pieces, s); });
                },
                [&](double& x, double g, double& m, double&, double&, int64_t step) {
                  if (maximize) g = -g;
                  g += decay * x;
                  if (momentum != 0) {
                    m = step == 1 ? g : momentum * m + (1 - dampening) * g;
                    g = nesterov ? g + momentum * m : m;
                  }
                  x -= lr * g;
                });
          }
}

TEST_CASE("adam and adamw") {
  for (const double decay : {0.0, 0.1})
    for (const bool decoupled : {false, true})
      for (const bool amsgrad : {false, true})
        for (const bool maximize : {false, true}) {
          const AdamStep options{0.01, 0.9, 0.99, 1e-8, decay, decoupled, amsgrad, maximize};
          compare(
              [&](Problem& q, int64_t step) {
                step_of(q, step, {q.s0, q.s1, amsgrad ? q.s2 : none},
                        [&](auto pieces) { cpu().adam(pieces, options); });
              },
              [&](double& x, double g, double& m, double& v, double& highest, int64_t step) {
                if (maximize) g = -g;
                if (decoupled)
                  x *= 1 - options.lr * decay;
                else
                  g += decay * x;
                m = 0.9 * m + (1 - 0.9) * g;
                v = 0.99 * v + (1 - 0.99) * g * g;
                highest = std::max(highest, v);
                const double n = static_cast<double>(step), root = std::sqrt(1 - std::pow(0.99, n));
                const double denominator = std::sqrt(amsgrad ? highest : v) / root + 1e-8;
                x -= options.lr / (1 - std::pow(0.9, n)) * m / denominator;
              });
        }
}

TEST_CASE("adagrad") {
  for (const double lr_decay : {0.0, 0.2})
    for (const double decay : {0.0, 0.1})
      for (const bool maximize : {false, true})
        compare(
            [&](Problem& q, int64_t step) {
              step_of(q, step, {q.s0}, [&](auto pieces) {
                cpu().adagrad(pieces, {0.05, lr_decay, decay, 1e-10, maximize});
              });
            },
            [&](double& x, double g, double& sum, double&, double&, int64_t step) {
              if (maximize) g = -g;
              g += decay * x;
              sum += g * g;
              x -= 0.05 / (1 + static_cast<double>(step - 1) * lr_decay) * g / (std::sqrt(sum) + 1e-10);
            });
}

TEST_CASE("rmsprop") {
  for (const double momentum : {0.0, 0.9})
    for (const double decay : {0.0, 0.1})
      for (const bool centered : {false, true})
        compare(
            [&](Problem& q, int64_t step) {
              step_of(q, step, {q.s0, centered ? q.s1 : none, momentum == 0 ? none : q.s2}, [&](auto pieces) {
                cpu().rmsprop(pieces, {0.01, 0.9, 1e-6, decay, momentum, centered, false});
              });
            },
            [&](double& x, double g, double& square, double& mean, double& buffer, int64_t) {
              g += decay * x;
              square = 0.9 * square + 0.1 * g * g;
              mean = 0.9 * mean + 0.1 * g;
              const double denominator = std::sqrt(centered ? square - mean * mean : square) + 1e-6;
              buffer = momentum * buffer + g / denominator;
              x -= 0.01 * (momentum == 0 ? g / denominator : buffer);
            });
}

TEST_CASE("optimizers: what others have written to a 16-bit value goes to its master") {
  for (const DType t : {f16, bf16})
    for (const int64_t n : {1, 7, 33, 1025, 40001}) {
      Problem q(t, f32, n);
      Array master(f32, {n});
      for (int64_t i = 0; i < n; ++i) {
        q.g.set(i, 0);
        master.set(i, q.p[i] * (1 + 1e-5));  // rounds to the value
        if (i % 3 == 0) q.p.set(i, q.p[i] + 3);
        if (i % 11 == 5) q.p.set(i, std::nan(""));
      }
      const std::vector<double> masters = master.values(), values = q.p.values();
      UpdatePiece update = update_of(q.p, q.g, 1);
      update.master = {master.view().data, f32};
      update.value_written = true;
      cpu().sgd({&update, 1}, {0.1, 0, 0, 0, false, false});
      const auto same = [](double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); };
      for (int64_t i = 0; i < n; ++i) {
        const bool written = i % 3 == 0 || i % 11 == 5;
        const auto at = static_cast<size_t>(i);
        REQUIRE(same(master[i], written ? values[at] : masters[at]));
        REQUIRE(same(q.p[i], values[at]));
      }
    }
}

TEST_CASE("optimizers: a shard's update is bit-equal to the whole one") {
  const int64_t n = 3001, cut = 1234;
  for (const DType t : {f32, bf16}) {
    Problem whole(t, f32, n), parts(t, f32, n);
    const auto piece = [](const Array& v, int64_t begin, int64_t end) {
      return view_over(v.view().as<char>() + begin * static_cast<int64_t>(item_size(v.view().dtype)), v.view().dtype,
                       {end - begin});
    };
    for (int64_t step = 1; step <= 3; ++step) {
      whole.next_gradient(step);
      parts.next_gradient(step);
      const AdamStep s{0.01, 0.9, 0.99, 1e-8, 0.1, true, false, false};
      step_of(whole, step, {whole.s0, whole.s1}, [&](auto pieces) { cpu().adam(pieces, s); });
      for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, cut}, {cut, n}}) {
        const UpdatePiece update = update_of(piece(parts.p, begin, end), piece(parts.g, begin, end), step,
                                             {piece(parts.s0, begin, end), piece(parts.s1, begin, end)});
        cpu().adam({&update, 1}, s);
      }
    }
    CHECK(whole.p.values() == parts.p.values());
    CHECK(whole.s1.values() == parts.s1.values());
  }
}

TEST_CASE("optimizers: many pieces in one call are bit-equal to one call each, on any number of threads") {
  const AdamStep s{0.01, 0.9, 0.99, 1e-8, 0.1, true, false, false};
  const int64_t sizes[] = {1, 40001, 0, 7, 20000, 513, 3};
  const int threads_before = num_threads();
  for (const int threads : {1, 3}) {
    set_num_threads(threads);
    std::deque<Problem> together, alone;
    for (const int64_t n : sizes) {
      together.emplace_back(n == 7 ? f64 : n == 513 ? bf16 : f32, n == 7 ? f64 : f32, n);
      alone.emplace_back(n == 7 ? f64 : n == 513 ? bf16 : f32, n == 7 ? f64 : f32, n);
    }
    for (int64_t step = 1; step <= 3; ++step) {
      std::vector<UpdatePiece> pieces;
      for (size_t i = 0; i < together.size(); ++i) {
        const int64_t own = step + (i == 4 ? 5 : 0);  // one that has been stepped more often
        together[i].next_gradient(step);
        alone[i].next_gradient(step);
        pieces.push_back(update_of(together[i].p, together[i].g, own, {together[i].s0, together[i].s1}));
        step_of(alone[i], own, {alone[i].s0, alone[i].s1}, [&](auto piece) { cpu().adam(piece, s); });
      }
      cpu().adam(pieces, s);
    }
    for (size_t i = 0; i < together.size(); ++i) {
      CHECK(together[i].p.values() == alone[i].p.values());
      CHECK(together[i].s1.values() == alone[i].s1.values());
    }
  }
  set_num_threads(threads_before);
  cpu().adam({}, s);
}

TEST_CASE("optimizers: floating parameters only") {
  Array p(i64, {1});
  const UpdatePiece update = update_of(p, p, 1);
  CHECK(error_of([&] { cpu().sgd({&update, 1}, {}); }) == "sgd: expects a floating dtype, got i64");
}
