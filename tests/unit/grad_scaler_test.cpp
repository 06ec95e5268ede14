// SPDX-License-Identifier: Apache-2.0
// Loss scaling: the scale's course, when a step is skipped, what is refused.
#include <cmath>

#include <doctest/doctest.h>

#include <loom/nn/optim/grad_scaler.h>
#include <loom/nn/optim/sgd.h>

#include "../error_of.h"
#include "weight.h"

using namespace loom;
using namespace loom::testing;
using optim::GradScaler;
using optim::GradScalerOptions;
using optim::ScalePolicy;

namespace {

// The scale after each iteration; o: one whose gradient overflows.
std::vector<double> course(GradScaler& scaler, const std::string& iterations) {
  Weight w;
  optim::SGD sgd(named(w), {.lr = 0});
  std::vector<double> scales;
  for (const char kind : iterations) {
    w.value.set_grad({});
    scaler.scale(w.loss(kind == 'o' ? infinite : 1)).backward();
    CHECK(scaler.step(sgd) == (kind != 'o'));
    scaler.update();
    scales.push_back(scaler.get_scale());
  }
  return scales;
}

std::vector<double> course(const GradScalerOptions& options, const std::string& iterations) {
  GradScaler scaler(options);
  return course(scaler, iterations);
}

GradScalerOptions deepspeed(int64_t hysteresis) {
  return {.init_scale = 256,
          .growth_interval = 2,
          .policy = ScalePolicy::deepspeed,
          .hysteresis = hysteresis,
          .min_scale = 1};
}

std::vector<double> numbers(std::initializer_list<double> values) { return values; }

}  // namespace

TEST_CASE("84: the scale grows after an interval of good iterations and halves at an overflow") {
  Weight w;
  optim::SGD sgd(named(w), {.lr = 0});
  GradScaler scaler({.init_scale = 4, .growth_interval = 2});
  const std::vector<std::pair<double, int64_t>> expected = {{4, 1}, {8, 0}, {8, 1}, {4, 0}, {4, 1}, {8, 0}};
  for (size_t i = 0; i < expected.size(); ++i) {
    w.value.set_grad({});
    scaler.scale(w.loss(i == 3 ? infinite : 1)).backward();
    scaler.step(sgd);
    scaler.update();
    CHECK(scaler.get_scale() == expected[i].first);
    CHECK(scaler.state_dict().at("growth_tracker").item<int64_t>() == expected[i].second);
  }
}

TEST_CASE("85: the scale does not grow beyond what f32 holds") {
  Weight w;
  optim::SGD sgd(named(w), {.lr = 0});
  GradScaler scaler({.init_scale = 0x1p127, .growth_interval = 1});
  scaler.scale(w.loss(0x1p-100)).backward();
  scaler.step(sgd);
  scaler.update();
  CHECK(scaler.get_scale() == 0x1p127);
  CHECK(scaler.state_dict().at("growth_tracker").item<int64_t>() == 0);
}

TEST_CASE("90: DeepSpeed's rules") {
  CHECK(course(deepspeed(1), "oo") == numbers({128, 64}));
  CHECK(course(deepspeed(1), "gggo") == numbers({256, 256, 512, 256}));
  CHECK(course(deepspeed(1), "gggggggg") == numbers({256, 256, 512, 512, 1024, 1024, 2048, 2048}));
  CHECK(course(deepspeed(2), "oooggggoo") == numbers({256, 128, 64, 64, 64, 128, 128, 128, 64}));
  CHECK(course(deepspeed(1), "oooooooooo") == numbers({128, 64, 32, 16, 8, 4, 2, 1, 1, 1}));
  GradScalerOptions consecutive = deepspeed(2);
  consecutive.consecutive_hysteresis = true;
  CHECK(course(consecutive, "ogogoo") == numbers({256, 256, 256, 256, 256, 128}));
}

TEST_CASE("90: an overflow at the smallest scale") {
  GradScalerOptions options = deepspeed(1);
  options.init_scale = 2;
  options.raise_at_min_scale = true;
  CHECK_THROWS_WITH(course(options, "oo"),
                    "GradScaler: an overflow at the smallest loss scale, 1: the gradients are not finite whatever the "
                    "scale");
}

TEST_CASE("a loaded scale below the smallest stays there at an overflow") {
  GradScaler scaler({.min_scale = 2});
  scaler.scale(ones({}));
  optim::State saved = scaler.state_dict();
  saved["scale"] = full({}, 0.5, f32);
  scaler.load_state_dict(saved);
  Weight w;
  optim::SGD sgd(std::vector<NamedTensor>{{"w", w.value}}, {.lr = 1});
  scaler.scale(w.loss(infinite)).backward();
  scaler.step(sgd);
  scaler.update();
  CHECK(scaler.get_scale() == 0.5);
}

TEST_CASE("a fixed scale skips and stays") {
  CHECK(course({.init_scale = 128, .growth_interval = 1, .policy = ScalePolicy::fixed}, "gogg") ==
        numbers({128, 128, 128, 128}));
}

TEST_CASE("a fixed scale stays what the program says, whatever a checkpoint says") {
  GradScaler saved, fixed({.init_scale = 128, .policy = ScalePolicy::fixed});
  fixed.load_state_dict(saved.state_dict());
  CHECK(fixed.get_scale() == 128);
}

TEST_CASE("the scale does not shrink to where its reciprocal is infinite") {
  const auto scales = course({.init_scale = 0x1p-100}, std::string(60, 'o'));
  CHECK(scales.back() == 0x1p-126);
}

TEST_CASE("88: calls in the wrong order") {
  Weight w;
  optim::SGD sgd(named(w), {.lr = 0.1});
  GradScaler scaler;
  CHECK_THROWS_WITH(scaler.unscale_(sgd),
                    "GradScaler: attempted unscale_ but nothing has been scaled; is scaler.scale(loss) missing earlier "
                    "in the iteration?");
  scaler.scale(w.loss()).backward();
  CHECK_THROWS_WITH(scaler.update(), "No inf checks were recorded prior to update.");
  scaler.unscale_(sgd);
  CHECK_THROWS_WITH(scaler.unscale_(sgd),
                    "unscale_() has already been called on this optimizer since the last update().");
  scaler.step(sgd);
  CHECK_THROWS_WITH(scaler.unscale_(sgd), "unscale_() is being called after step().");
  CHECK_THROWS_WITH(scaler.step(sgd), "step() has already been called since the last update().");
  scaler.update();
  scaler.unscale_(sgd);
}

TEST_CASE("88: a step without any gradient") {
  Weight w, other;
  optim::SGD sgd(named(w), {.lr = 0.1}), second(named(other), {.lr = 0.1});
  GradScaler scaler;
  scaler.scale(w.loss()).backward();
  CHECK_THROWS_WITH(scaler.step(second), "No inf checks were recorded for this optimizer.");
  CHECK(second.step_counts().taken == 0);
  CHECK_THROWS_WITH(scaler.update(), "No inf checks were recorded prior to update.");
  CHECK(scaler.step(sgd));
  scaler.update();
  scaler.unscale_(second);
  CHECK_FALSE(scaler.found_inf(second).defined());
  CHECK_THROWS_WITH(scaler.step(second), "No inf checks were recorded for this optimizer.");
}

TEST_CASE("options out of range") {
  CHECK_THROWS_WITH(GradScaler({.growth_factor = 1}), "GradScaler: the growth factor must be > 1 and finite, got 1");
  CHECK_THROWS_WITH(GradScaler({.backoff_factor = 1}), "GradScaler: the backoff factor must be between 0 and 1, got 1");
  const std::string range = ", expected a number from 2^-126 to the largest of f32";
  CHECK(error_of([] { GradScaler({.init_scale = 0}); }) == "GradScaler: init_scale is 0" + range);
  CHECK(error_of([] { GradScaler({.init_scale = 3.5e38}); }) == "GradScaler: init_scale is 3.5e+38" + range);
  for (const double wrong : {0.0, 1e-50, 1e39}) {  // f32 makes 0 or infinity of them
    CAPTURE(wrong);
    GradScaler scaler;
    scaler.scale(ones({}));
    CHECK(error_of([&] { scaler.update(wrong); }) == str("GradScaler: the new scale is ", wrong, range));
    optim::State saved = scaler.state_dict();
    saved["scale"] = full({}, wrong, f64);
    CHECK(error_of([&] { scaler.load_state_dict(saved); }) == str("GradScaler: the saved scale is ", wrong, range));
    CHECK(scaler.get_scale() == 65536);
  }
  CHECK_THROWS_WITH(GradScaler({.growth_factor = INFINITY}),
                    "GradScaler: the growth factor must be > 1 and finite, got inf");
  CHECK_THROWS_WITH(GradScaler({.init_scale = 4, .min_scale = 64}),
                    "GradScaler: min_scale is 64, expected a number from 0 to init_scale, which is 4");
  CHECK_THROWS_WITH(GradScaler({.growth_interval = 0}), "GradScaler: growth_interval is 0, expected at least 1");
  CHECK_THROWS_WITH(GradScaler({.hysteresis = 0}), "GradScaler: hysteresis is 0, expected at least 1");
}

TEST_CASE("89: clipping sees unscaled gradients") {
  Weight w;
  optim::SGD sgd(named(w), {.lr = 1});
  GradScaler scaler({.init_scale = 1024});
  scaler.scale(w.loss(2)).backward();
  CHECK(w.value.grad()[0].item<double>() == 2048);
  scaler.unscale_(sgd);
  CHECK(w.value.grad()[0].item<double>() == 2);
  w.value.grad().clamp_(-1.5, 1.5);
  scaler.step(sgd);
  CHECK(w.value[0].item<double>() == -0.5);

  Weight other;  // clipped while scaled: another step
  optim::SGD same(named(other), {.lr = 1});
  GradScaler second({.init_scale = 1024});
  second.scale(other.loss(2)).backward();
  other.value.grad().clamp_(-1.5, 1.5);
  second.step(same);
  CHECK(other.value[0].item<double>() == doctest::Approx(1 - 1.5 / 1024));
}

TEST_CASE("91: the step that makes the scale grow divides by the old one") {
  Weight w(0);
  optim::SGD sgd(named(w), {.lr = 1});
  GradScaler scaler({.init_scale = 8, .growth_interval = 1});
  scaler.scale(w.loss(3)).backward();
  scaler.step(sgd);
  scaler.update();
  CHECK(scaler.get_scale() == 16);
  CHECK(w.value[0].item<double>() == -3);
}

TEST_CASE("92: accumulation at one scale; an overflow in one part skips the whole step") {
  for (const bool overflow : {false, true}) {
    Weight w(0);
    optim::SGD sgd(named(w), {.lr = 1});
    GradScaler scaler({.init_scale = 8});
    for (int micro = 0; micro < 4; ++micro) scaler.scale(w.loss(overflow && micro == 1 ? infinite : 0.25)).backward();
    CHECK(scaler.step(sgd) == !overflow);
    scaler.update();
    CHECK(w.value[0].item<double>() == (overflow ? 0 : -1));
    CHECK(scaler.get_scale() == (overflow ? 4 : 8));
  }
}

TEST_CASE("93: two optimizers, one overflows: the other steps, the scale halves once") {
  Weight a(0), b(0);
  optim::SGD first(named(a), {.lr = 1}), second(named(b), {.lr = 1});
  GradScaler scaler({.init_scale = 8});
  scaler.scale(a.loss(infinite) + b.loss(1)).backward();
  CHECK_FALSE(scaler.step(first));
  CHECK(scaler.step(second));
  scaler.update();
  CHECK(a.value[0].item<double>() == 0);
  CHECK(b.value[0].item<double>() == -1);
  CHECK(scaler.get_scale() == 4);
}

TEST_CASE("94: the state goes round; disabled there is none and everything passes through") {
  Weight w(0);
  optim::SGD sgd(named(w), {.lr = 1});
  GradScaler scaler({.init_scale = 8, .growth_interval = 3});
  for (int i = 0; i < 2; ++i) {
    w.value.set_grad({});
    scaler.scale(w.loss()).backward();
    scaler.step(sgd);
    scaler.update();
  }
  GradScaler other({.growth_interval = 3});
  other.load_state_dict(scaler.state_dict());
  CHECK(other.get_scale() == 8);
  w.value.set_grad({});
  other.scale(w.loss()).backward();
  other.step(sgd);
  other.update();
  CHECK(other.get_scale() == 16);  // the tracker went with it

  GradScaler off({.enabled = false});
  CHECK(off.state_dict().empty());
  CHECK(off.get_scale() == 1);
  w.value.set_grad({});
  off.scale(w.loss()).backward();
  CHECK(w.value.grad()[0].item<double>() == 1);
  CHECK(off.step(sgd));
  off.update();
  CHECK_THROWS_WITH(other.load_state_dict(off.state_dict()),
                    "GradScaler: the state is empty; it was saved with scaling disabled");
  CHECK_THROWS_WITH(other.load_state_dict({{"scale", ones({})}}), "GradScaler: the state has no 'growth_tracker'");
}

TEST_CASE("94: hysteresis and DeepSpeed's counters go round") {
  const std::string iterations = "oggoggggogoooggggoggggggo";
  for (const bool consecutive : {false, true})
    for (const ScalePolicy policy : {ScalePolicy::deepspeed, ScalePolicy::dynamic}) {
      GradScalerOptions options = deepspeed(3);
      options.policy = policy;
      options.consecutive_hysteresis = consecutive;
      const std::vector<double> whole = course(options, iterations);
      for (size_t stop = 0; stop <= iterations.size(); ++stop) {
        GradScaler before(options), after(options);
        std::vector<double> scales = course(before, iterations.substr(0, stop));
        after.load_state_dict(before.state_dict());
        for (const double scale : course(after, iterations.substr(stop))) scales.push_back(scale);
        CHECK(scales == whole);
      }
    }
}

TEST_CASE("gradients of 16 bits keep the scale until the step, which computes in f32") {
  for (const DType dtype : {f16, bf16}) {
    Weight w(1, dtype);
    optim::SGD sgd(named(w), {.lr = 0x1p20});
    GradScaler scaler({.init_scale = 65536});
    scaler.scale(w.loss(0x1p-26)).backward();  // below the smallest f16, but not times the scale
    scaler.unscale_(sgd);
    CHECK(w.value.grad()[0].item<double>() == 0x1p-10);
    CHECK(scaler.step(sgd));
    CHECK(w.value[0].item<double>() == 1 - 0x1p-6);
    CHECK_FALSE(sgd.half_factor().defined());
  }
}

TEST_CASE("what is not finite is found in every dtype, wherever it is") {
  for (const DType dtype : {f64, f32, f16, bf16})
    for (const double value : {infinite, -infinite, double(NAN)})
      for (const int64_t at : {0, 17, 4999}) {
        Parameter p(zeros({5000}, dtype));
        optim::SGD sgd(std::vector<NamedTensor>{{"p", p}}, {.lr = 1});
        GradScaler scaler({.init_scale = 2});
        scaler.scale(sum(p.to(f32))).backward();
        p.grad()[at].fill_(value);
        CHECK_FALSE(scaler.step(sgd));
        scaler.update();
        CHECK(scaler.get_scale() == 1);
      }
}
