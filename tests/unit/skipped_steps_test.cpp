// SPDX-License-Identifier: Apache-2.0
// Steps that are skipped as gradients are not finite: schedules that follow steps, or epochs, and what is resumed.
#include <cmath>

#include <doctest/doctest.h>

#include <loom/nn/optim/adam.h>
#include <loom/nn/optim/decay.h>
#include <loom/nn/optim/grad_scaler.h>
#include <loom/nn/optim/sequential_schedule.h>
#include <loom/nn/optim/sgd.h>

#include "weight.h"

using namespace loom;
using namespace loom::testing;
using optim::GradScaler;

TEST_CASE("99: a skipped step advances neither the optimizer's step nor a schedule that follows each step") {
  Weight w;
  optim::Adam adam(named(w), {.lr = 0.1});
  optim::ExponentialLR decay(adam, 0.5);
  optim::SequentialLR sequence(adam, {std::make_shared<optim::ExponentialLR>(adam, 0.5)}, {});
  GradScaler scaler;
  const auto iteration = [&](double slope) {
    w.value.set_grad({});
    scaler.scale(w.loss(slope)).backward();
    scaler.step(adam);
    scaler.update();
    decay.step();
    sequence.step();
  };
  iteration(1);
  const auto before = adam.state_dict();
  iteration(infinite);
  iteration(NAN);
  CHECK(adam.state_dict().at("step.w").item<int64_t>() == 1);
  CHECK(equal(adam.state_dict().at("exp_avg.w"), before.at("exp_avg.w")));
  CHECK(decay.last_epoch() == 1);
  CHECK(sequence.last_epoch() == 1);
  iteration(1);
  CHECK(adam.state_dict().at("step.w").item<int64_t>() == 2);
  CHECK(decay.last_epoch() == 2);
  CHECK(sequence.last_epoch() == 2);
  CHECK(adam.step_counts().taken == 2);
  CHECK(adam.step_counts().skipped == 2);
}

TEST_CASE("99: a state that is saved between a skipped step and the schedule's goes on as if it had not been") {
  Weight w;
  optim::SGD sgd(named(w), {.lr = 0.1});
  optim::ExponentialLR decay(sgd, 0.5);
  for (const bool skipped : {true, false}) {
    w.value.set_grad(full({3}, 1));
    if (skipped)
      sgd.skip_step();
    else
      sgd.step();
    const auto state = decay.state_dict();
    optim::SGD later(named(w), {.lr = 0.1});
    optim::ExponentialLR resumed(later, 0.5);
    resumed.load_state_dict(state);
    decay.step();
    resumed.step();
    CHECK(resumed.last_epoch() == decay.last_epoch());
    CHECK(resumed.last_epoch() == (skipped ? 0 : 1));
  }
}

TEST_CASE("99: a state that is loaded forgets what the optimizer has skipped since it was saved") {
  Weight w;
  optim::SGD sgd(named(w), {.lr = 0.1});
  optim::ExponentialLR decay(sgd, 0.5);
  const auto state = decay.state_dict();
  sgd.skip_step();
  decay.load_state_dict(state);
  decay.step();
  CHECK(decay.last_epoch() == 1);
}

TEST_CASE("a schedule that follows epochs advances though the last step was skipped") {
  Weight w;
  optim::SGD sgd(named(w), {.lr = 0.1});
  optim::ExponentialLR decay(sgd, 0.5);
  GradScaler scaler;
  for (const double slope : {1.0, infinite}) {
    w.value.set_grad({});
    scaler.scale(w.loss(slope)).backward();
    scaler.step(sgd);
    scaler.update();
  }
  decay.step();
  CHECK(decay.last_epoch() == 1);
}

TEST_CASE("99: a schedule that follows epochs advances after a resume too, though the rest of the epoch was skipped") {
  for (const bool in_place : {false, true}) {
    Weight w;
    optim::SGD sgd(named(w), {.lr = 0.1});
    optim::ExponentialLR decay(sgd, 0.5);
    w.value.set_grad(ones({3}));
    sgd.step();
    const auto state = decay.state_dict();
    if (in_place) {
      decay.step();
      decay.load_state_dict(state);
      sgd.skip_step();
      decay.step();
      CHECK(decay.last_epoch() == 1);
      continue;
    }
    optim::SGD resumed_sgd(named(w), {.lr = 0.1});
    optim::ExponentialLR resumed(resumed_sgd, 0.5);
    resumed.load_state_dict(state);
    resumed_sgd.skip_step();
    resumed.step();
    CHECK(resumed.last_epoch() == 1);
    resumed_sgd.skip_step();
    resumed.step();  // nothing was made since
    CHECK(resumed.last_epoch() == 1);
  }
}
