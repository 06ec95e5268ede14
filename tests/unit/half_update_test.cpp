// SPDX-License-Identifier: Apache-2.0
// Optimizers of 16-bit parameters: f32 copies, stochastic rounding, and what plain rounding loses.
#include <cmath>
#include <limits>

#include <doctest/doctest.h>

#include <loom/accelerators/half.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/ops.h>
#include <loom/nn/linear.h>
#include <loom/nn/optim/adagrad.h>
#include <loom/nn/optim/adam.h>
#include <loom/nn/optim/rmsprop.h>
#include <loom/nn/optim/sgd.h>
#include <loom/tensor/create.h>

using namespace loom;
using optim::HalfUpdate;

namespace {

// steps of 1e-4 on n numbers that begin at 1.
std::vector<double> after_steps(HalfUpdate how, DType dtype, double direction, int steps, int64_t n = 1,
                                uint64_t seed = 0) {
  Parameter p(ones({n}, dtype));
  optim::SGD sgd(std::vector<NamedTensor>{{"p", p}}, {.lr = 1e-4});
  sgd.set_half_update(how, seed);
  for (int i = 0; i < steps; ++i) {
    p.set_grad(full({n}, -direction, dtype));
    sgd.step();
  }
  return p.to_vector<double>();
}

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

template <class Number>
void check_rounding(float value, int64_t draws) {
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < draws; i += 4)
    for (const uint32_t word : Philox{7, 1, static_cast<uint64_t>(i)}.block(0)) {
      const double rounded = static_cast<float>(Number::stochastic(value, word));
      sum += rounded;
      squares += (rounded - value) * (rounded - value);
    }
  const double n = static_cast<double>(draws), deviation = std::sqrt(squares / n / n);
  CHECK(std::abs(sum / n - static_cast<double>(value)) <= 4 * deviation + 1e-12);
}

}  // namespace

TEST_CASE("96: a thousand small updates: masters reach the sum, plain rounding stalls") {
  for (const DType dtype : {bf16, f16}) {
    const double unit = dtype == bf16 ? 0x1p-7 : 0x1p-10;
    CHECK(after_steps(HalfUpdate::master, dtype, 1, 1000)[0] == doctest::Approx(1.1).epsilon(unit));
    CHECK(after_steps(HalfUpdate::master, dtype, -1, 1000)[0] == doctest::Approx(0.9).epsilon(unit));
    CHECK(after_steps(HalfUpdate::nearest, dtype, 1, 1000)[0] == 1);
  }
}

TEST_CASE("97: stochastic rounding reaches the sum in the mean, the same with the same seed") {
  for (const DType dtype : {bf16, f16}) {
    const auto some = after_steps(HalfUpdate::stochastic, dtype, 1, 200, 4001, 5);
    CHECK(mean_of(some) == doctest::Approx(1.02).epsilon(1e-3));
    CHECK(some == after_steps(HalfUpdate::stochastic, dtype, 1, 200, 4001, 5));
    CHECK(some != after_steps(HalfUpdate::stochastic, dtype, 1, 200, 4001, 6));
  }
}

TEST_CASE("97: a step rounds up as often as its place between two neighbours says, to better than 1 %") {
  const int64_t n = 1500000;
  for (const DType dtype : {bf16, f16})
    for (const double place : {0.25, 0.5, 0.8125}) {
      const double unit = dtype == bf16 ? 0x1p-7 : 0x1p-10;
      Parameter p(ones({n}, dtype));
      optim::SGD sgd(std::vector<NamedTensor>{{"p", p}}, {.lr = 1});
      sgd.set_half_update(HalfUpdate::stochastic, 11);
      p.set_grad(full({n}, -place * unit, dtype));  // exact in 16 bits
      sgd.step();
      const double up = ((p.to(f64) - 1.0) / unit).mean().item<double>();
      const double bound = 5 * std::sqrt(place * (1 - place) / static_cast<double>(n));
      CHECK(bound < 0.01 * place);
      CHECK(std::abs(up - place) < bound);
      CHECK(((p == 1.0).to(i64).sum() + (p == 1 + unit).to(i64).sum()).item<int64_t>() == n);
    }
}

TEST_CASE("97: the mean of roundings is the value; infinities and NaN stay; exact values stay") {
  for (const float value : {1.0009765f, -3.1415926f, 1e-30f, 65000.1f, 6e-8f, -2.3e-7f}) {
    check_rounding<BFloat16>(value, 1000000);
    check_rounding<Half>(value, 1000000);
  }
  constexpr float infinite = std::numeric_limits<float>::infinity();
  for (const uint32_t word : {0u, 0x8000u, 0xffffffffu}) {
    CHECK(static_cast<float>(BFloat16::stochastic(infinite, word)) == infinite);
    CHECK(static_cast<float>(Half::stochastic(-infinite, word)) == -infinite);
    CHECK(std::isnan(static_cast<float>(BFloat16::stochastic(NAN, word))));
    CHECK(std::isnan(static_cast<float>(Half::stochastic(NAN, word))));
    for (uint32_t bits = 0; bits < 65536; ++bits) {
      const auto half = Half::from_bits(static_cast<uint16_t>(bits));
      const auto brain = BFloat16::from_bits(static_cast<uint16_t>(bits));
      if (static_cast<float>(half) == static_cast<float>(half)) CHECK(Half::stochastic(half, word).bits == half.bits);
      if (static_cast<float>(brain) == static_cast<float>(brain))
        CHECK(BFloat16::stochastic(brain, word).bits == brain.bits);
    }
  }
}

TEST_CASE("every optimizer with masters is its f32 self, rounded") {
  const auto compare = [](const auto& make) {
    manual_seed(4);
    const Tensor start = randn({37}, bf16);
    Parameter half(start.clone()), full(start.to(f32));
    auto a = make(std::vector<NamedTensor>{{"p", half}});
    auto b = make(std::vector<NamedTensor>{{"p", full}});
    for (int i = 0; i < 20; ++i) {
      const Tensor g = randn({37}, bf16);
      half.set_grad(g);
      full.set_grad(g.to(f32));
      a.step();
      b.step();
    }
    CHECK(equal(a.state_dict().at("master.p"), full.detach()));
    CHECK(equal(half.detach(), full.detach().to(bf16)));
  };
  using Named = std::vector<NamedTensor>;
  compare([](const Named& p) { return optim::SGD(p, {.lr = 0.01, .momentum = 0.9}); });
  compare([](const Named& p) { return optim::AdamW(p, {.lr = 0.01, .amsgrad = true}); });
  compare([](const Named& p) { return optim::Adagrad(p, {.lr = 0.01}); });
  compare([](const Named& p) { return optim::RMSprop(p, {.lr = 0.01, .momentum = 0.5, .centered = true}); });
}

TEST_CASE("masters and the rounding's place are state: resumed is never stopped, bit for bit") {
  for (const HalfUpdate how : {HalfUpdate::master, HalfUpdate::stochastic}) {
    const auto step = [](Parameter& p, optim::Optimizer& optimizer, int i) {
      p.set_grad(full({50}, 0.01 * (i + 1), bf16));
      optimizer.step();
    };
    Parameter p(ones({50}, bf16)), q(ones({50}, bf16));
    optim::AdamW one(std::vector<NamedTensor>{{"p", p}}, {.lr = 1e-3}), two(std::vector<NamedTensor>{{"p", q}});
    one.set_half_update(how, 3);
    two.set_half_update(how, 3);
    for (int i = 0; i < 5; ++i) step(p, one, i);
    const auto saved = one.state_dict();
    CHECK(saved.contains("master.p") == (how == HalfUpdate::master));
    {
      const NoGrad off;
      q.copy_(p);
    }
    two.load_state_dict(saved);
    for (int i = 5; i < 10; ++i) {
      step(p, one, i);
      step(q, two, i);
    }
    CHECK(equal(p.detach(), q.detach()));
    if (how == HalfUpdate::master) CHECK(equal(one.state_dict().at("master.p"), two.state_dict().at("master.p")));
  }
}

TEST_CASE("what somebody else writes to a parameter goes to its master, element by element") {
  for (const DType dtype : {bf16, f16})
    for (const bool transposed : {false, true}) {
      Tensor start = full({3, 5}, 1.0, dtype);
      Parameter p(transposed ? start.t() : start);
      optim::SGD sgd(std::vector<NamedTensor>{{"p", p}}, {.lr = 1e-4});
      const auto steps = [&](int n, double gradient) {
        for (int i = 0; i < n; ++i) {
          p.set_grad(full(p.shape(), gradient, dtype));
          sgd.step();
          const NoGrad off;
          p.clamp_(-2, 2);  // writes nothing new, but writes
        }
      };
      steps(200, -1);
      {
        const NoGrad off;
        p[1][2].fill_(5.0);
        p[0][0].clamp_(-0.5, 0.5);
      }
      steps(1, 0);  // clamps 5 to 2
      steps(200, -1);
      const double unit = dtype == bf16 ? 0x1p-7 : 0x1p-10;
      const auto master = sgd.state_dict().at("master.p");
      for (int64_t i = 0; i < p.size(0); ++i)
        for (int64_t k = 0; k < p.size(1); ++k) {
          const double expected = i == 1 && k == 2 ? 2 : i == 0 && k == 0 ? 0.52 : 1.04;
          CHECK(p[i][k].item<double>() == doctest::Approx(expected).epsilon(unit));
          if (expected != 2) CHECK(master[i][k].item<double>() == doctest::Approx(expected).epsilon(1e-4));
        }
    }
}

TEST_CASE("a state's masters are what the next step finds: elements written since are the parameter's") {
  for (const DType dtype : {f16, bf16}) {
    const Tensor x = ones({2}).to(dtype).requires_grad_();
    optim::SGD sgd(std::vector<NamedTensor>{{"x", x}}, {.lr = 1e-4});
    x.set_grad(ones({2}).to(dtype));
    sgd.step();
    {
      const NoGrad off;
      x.detach()[1].fill_(0.5);
    }
    const Tensor master = sgd.state_dict().at("master.x");
    CHECK(master[0].item<float>() == 1.0F - 1e-4F);
    CHECK(master[1].item<float>() == 0.5F);
  }
}

TEST_CASE("a state with masters loads where there are none: the first step starts from them; and the other way round") {
  Parameter half(ones({4}, bf16)), whole(ones({4}));
  optim::AdamW low(std::vector<NamedTensor>{{"p", half}}), high(std::vector<NamedTensor>{{"p", whole}});
  for (int i = 0; i < 3; ++i) {
    half.set_grad(ones({4}, bf16));
    low.step();
  }
  whole.set_grad(ones({4}));
  high.step();
  const auto from_low = low.state_dict(), from_high = high.state_dict();
  CHECK_FALSE(from_high.contains("master.p"));
  const Tensor master = from_low.at("master.p").clone();
  CHECK_FALSE(equal(master.to(bf16).to(f32), master));
  for (const DType wide : {f32, f64}) {
    Parameter p(half.detach().to(wide));
    {
      const NoGrad off;
      p[1].fill_(7.0);  // not the rounding of anything
    }
    optim::AdamW other(std::vector<NamedTensor>{{"p", p}});
    other.load_state_dict(from_low);
    CHECK(equal(other.state_dict().at("master.p").to(f32), master));  // saved again before it is used
    other.param_groups()[0].set_lr(0);
    p.set_grad(ones({4}, wide));
    other.step();
    CHECK(p[0].item<double>() == master[0].item<double>());
    CHECK(p[1].item<double>() == 7);
    CHECK_FALSE(other.state_dict().contains("master.p"));
  }
  low.load_state_dict(from_high);
  half.set_grad(ones({4}, bf16));
  low.step();
  CHECK(low.state_dict().contains("master.p"));
}
