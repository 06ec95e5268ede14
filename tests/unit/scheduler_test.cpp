// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <functional>
#include <memory>

#include <loom/autograd/parameter.h>
#include <loom/nn/optim/optim.h>

#include "golden.h"
#include "tensor_test.h"

namespace {

using namespace loom;
using namespace loom::optim;
using Make = std::function<std::unique_ptr<Scheduler>(Optimizer&)>;

std::unique_ptr<Scheduler> sequence(Optimizer& o) {
  std::vector<std::shared_ptr<Scheduler>> parts = {
      std::make_shared<LinearLR>(o, LinearLROptions{.start_factor = 0.1, .total_iters = 4}),
      std::make_shared<CosineAnnealingLR>(o, 12, 0.001), std::make_shared<CosineAnnealingWarmRestarts>(o, 3, 2)};
  return std::make_unique<SequentialLR>(o, std::move(parts), std::vector<int64_t>{5, 18});
}

const std::map<std::string, Make> schedules = {
    {"step", [](Optimizer& o) { return std::make_unique<StepLR>(o, 7, 0.3); }},
    {"multi_step",
     [](Optimizer& o) {
       return std::make_unique<MultiStepLR>(o, std::vector<int64_t>{3, 8, 8, 20}, 0.5);
     }},
    {"exponential", [](Optimizer& o) { return std::make_unique<ExponentialLR>(o, 0.9); }},
    {"constant", [](Optimizer& o) { return std::make_unique<ConstantLR>(o, 0.25, 6); }},
    {"linear",
     [](Optimizer& o) {
       return std::make_unique<LinearLR>(o, LinearLROptions{.start_factor = 0.2, .end_factor = 0.8, .total_iters = 9});
     }},
    {"polynomial", [](Optimizer& o) { return std::make_unique<PolynomialLR>(o, 20, 1.7); }},
    {"cosine", [](Optimizer& o) { return std::make_unique<CosineAnnealingLR>(o, 8, 0.004); }},
    {"cosine_restarts", [](Optimizer& o) { return std::make_unique<CosineAnnealingWarmRestarts>(o, 4, 2, 0.002); }},
    {"lambda",
     [](Optimizer& o) {
       return std::make_unique<LambdaLR>(
           o, std::vector<LambdaLR::Factor>{[](int64_t e) { return std::pow(0.95, static_cast<double>(e)); },
                                            [](int64_t e) { return 1.0 / static_cast<double>(1 + e); }});
     }},
    {"one_cycle",
     [](Optimizer& o) {
       return std::make_unique<OneCycleLR>(o, PerGroup{0.5, 0.2}, OneCycleOptions{.total_steps = 32});
     }},
    {"one_cycle_linear",
     [](Optimizer& o) {
       return std::make_unique<OneCycleLR>(o, 0.4,
                                           OneCycleOptions{.epochs = 4,
                                                           .steps_per_epoch = 8,
                                                           .pct_start = 0.25,
                                                           .anneal_strategy = "linear",
                                                           .div_factor = 10,
                                                           .three_phase = true});
     }},
    {"one_cycle_flat_momentum",
     [](Optimizer& o) {
       return std::make_unique<OneCycleLR>(o, 0.5, OneCycleOptions{.total_steps = 40, .cycle_momentum = false});
     }},
    {"one_cycle_adam",
     [](Optimizer& o) {
       return std::make_unique<OneCycleLR>(o, PerGroup{0.5, 0.2}, OneCycleOptions{.total_steps = 32});
     }},
    {"one_cycle_adam_linear",
     [](Optimizer& o) {
       return std::make_unique<OneCycleLR>(o, 0.4,
                                           OneCycleOptions{.total_steps = 33,
                                                           .anneal_strategy = "linear",
                                                           .base_momentum = {0.8, 0.7},
                                                           .max_momentum = 0.9,
                                                           .final_div_factor = 50});
     }},
    {"one_cycle_adam_three_phase",
     [](Optimizer& o) {
       return std::make_unique<OneCycleLR>(o, 0.4,
                                           OneCycleOptions{.total_steps = 31, .pct_start = 0.4, .three_phase = true});
     }},
    {"plateau_abs",
     [](Optimizer& o) {
       return std::make_unique<ReduceLROnPlateau>(
           o, PlateauOptions{.factor = 0.3, .patience = 1, .threshold = 0.21, .threshold_mode = "abs"});
     }},
    {"plateau_eps",
     [](Optimizer& o) {
       return std::make_unique<ReduceLROnPlateau>(
           o, PlateauOptions{.factor = 0.9, .patience = 2, .threshold = 0, .eps = 0.0035});
     }},
    {"plateau_max",
     [](Optimizer& o) {
       return std::make_unique<ReduceLROnPlateau>(
           o, PlateauOptions{.mode = "max", .factor = 0.7, .patience = 0, .threshold = 0.3, .cooldown = 1});
     }},
    {"plateau_max_abs",
     [](Optimizer& o) {
       return std::make_unique<ReduceLROnPlateau>(o, PlateauOptions{.mode = "max",
                                                                    .factor = 0.2,
                                                                    .patience = 2,
                                                                    .threshold = 0.1,
                                                                    .threshold_mode = "abs",
                                                                    .cooldown = 3,
                                                                    .min_lr = 0.002});
     }},
    {"plateau",
     [](Optimizer& o) {
       return std::make_unique<ReduceLROnPlateau>(
           o, PlateauOptions{.factor = 0.5, .patience = 3, .cooldown = 2, .min_lr = {0.01, 0.001}});
     }},
    {"sequence", sequence},
};

struct Setup {
  Parameter a{ones({1})}, b{ones({1})};
  std::vector<Group> groups = {{{{"a", a}}, {}}, {{{"b", b}}, {{"lr", 0.03}}}};
  SGD sgd{groups, {.lr = 0.1, .momentum = 0.9}};
  Adam adam{groups, {.lr = 0.1}};

  Optimizer& optimizer(const std::string& schedule) {
    return schedule.find("adam") == std::string::npos ? static_cast<Optimizer&>(sgd) : adam;
  }
};

void step(const std::string& name, Scheduler& schedule, int epoch) {
  const double falling = std::max(1.0 - 0.2 * epoch, 0.3) + (epoch % 7 == 3 ? 0.05 : 0.0);
  if (auto* const plateau = dynamic_cast<ReduceLROnPlateau*>(&schedule))
    plateau->step(name.starts_with("plateau_max") ? 1.5 - falling : falling);
  else
    schedule.step();
}

void check_row(const Optimizer& optimizer, const std::vector<double>& expected, size_t row) {
  for (size_t group = 0; group < 2; ++group) {
    const Group& g = optimizer.param_groups()[group];
    CHECK(std::abs(g.lr() - expected[row * 4 + group * 2]) < 1e-15);
    const double momentum = g.option(g.options.contains("beta1") ? "beta1" : "momentum");
    CHECK(std::abs(momentum - expected[row * 4 + group * 2 + 1]) < 1e-14);
  }
}

}  // namespace

TEST_CASE("schedules are PyTorch's over 31 epochs") {
  for (const auto& [name, make] : schedules) {
    CAPTURE(name);
    Setup setup;
    Optimizer& optimizer = setup.optimizer(name);
    const auto schedule = make(optimizer);
    const std::vector<double> expected = golden::file("schedules").at(name).to_vector<double>();
    for (int epoch = 0; epoch < 31; ++epoch) {
      CAPTURE(epoch);
      check_row(optimizer, expected, static_cast<size_t>(epoch));
      for (size_t g = 0; g < 2; ++g) CHECK(schedule->get_last_lr()[g] == optimizer.param_groups()[g].lr());
      step(name, *schedule, epoch);
    }
  }
  CHECK(schedules.size() == golden::cases(golden::file("schedules")).size());
}

TEST_CASE("a schedule that is saved and loaded goes on as before, bit for bit") {
  for (const auto& [name, make] : schedules) {
    CAPTURE(name);
    Setup whole, first, second;
    Optimizer &of_whole = whole.optimizer(name), &of_first = first.optimizer(name), &of_second = second.optimizer(name);
    const auto reference = make(of_whole), before = make(of_first);
    for (int epoch = 0; epoch < 11; ++epoch) step(name, *reference, epoch), step(name, *before, epoch);
    CHECK(tensor_test::error_of([&] { Setup().optimizer(name).load_state_dict(of_first.state_dict()); }).empty());
    const auto after = make(of_second);
    after->load_state_dict(before->state_dict());
    of_second.load_state_dict(of_first.state_dict());
    for (int epoch = 11; epoch < 25; ++epoch) {
      step(name, *reference, epoch), step(name, *after, epoch);
      CHECK(reference->get_last_lr() == after->get_last_lr());
      for (size_t g = 0; g < 2; ++g) CHECK(of_whole.param_groups()[g].options == of_second.param_groups()[g].options);
    }
  }
}

TEST_CASE("warm restarts step to fractions of epochs") {
  Setup setup;
  CosineAnnealingWarmRestarts schedule(setup.sgd, 2, 2);
  schedule.step(0.5);
  CHECK(schedule.get_last_lr()[0] == doctest::Approx(0.1 * (1 + std::cos(std::acos(-1.0) / 4)) / 2));
  schedule.step(4.0);  // the second cycle, of 4 epochs, began at 2
  CHECK(schedule.get_last_lr()[0] == doctest::Approx(0.05));
}

TEST_CASE("a sequence of schedules loads as a whole or not at all") {
  const auto make = [](SGD& sgd) {
    return SequentialLR(sgd, {std::make_shared<LinearLR>(sgd), std::make_shared<StepLR>(sgd, 2)}, {3});
  };
  Setup ahead, here;
  SequentialLR before = make(ahead.sgd), after = make(here.sgd);
  for (int i = 0; i < 4; ++i) before.step();
  State state = before.state_dict();
  state.erase("schedulers.1.gamma");
  CHECK(tensor_test::error_of([&] { after.load_state_dict(state); }) ==
        "scheduler: load_state_dict: missing or of another length: of schedulers.1. gamma");
  CHECK(after.last_epoch() == 0);
  after.load_state_dict(before.state_dict());
  CHECK(after.last_epoch() == 4);
}

TEST_CASE("OneCycleLR: a phase without length is over at once") {
  Setup s;
  OneCycleLR cycle(s.sgd, 0.5, {.total_steps = 10, .pct_start = 0.1});
  CHECK(cycle.get_last_lr()[0] == 0.5);
  for (int i = 0; i < 9; ++i) cycle.step();
  CHECK(cycle.get_last_lr()[0] < 1e-5);
}

TEST_CASE("schedulers say what is wrong") {
  using tensor_test::error_of;
  Setup s;
  CHECK(error_of([&] { LinearLR(s.sgd, {.start_factor = 0}); }) ==
        "LinearLR: start_factor expected to be greater than 0 and at most 1, got 0");
  CHECK(error_of([&] { OneCycleLR(s.sgd, 0.1, {}); }) ==
        "OneCycleLR: either total_steps or both epochs and steps_per_epoch must be given");
  CHECK(error_of([&] {
          OneCycleLR(s.sgd, PerGroup{0.1, 0.2, 0.3}, {.total_steps = 5});
        }) == "OneCycleLR: expected 2 values for max_lr, got 3");
  Adagrad adagrad({{"a", s.a}});
  CHECK(error_of([&] { OneCycleLR(adagrad, 0.1, {.total_steps = 5}); }) ==
        "OneCycleLR: Adagrad has neither momentum nor beta1; set cycle_momentum = false");
  OneCycleLR short_cycle(s.sgd, 0.1, {.total_steps = 2});
  short_cycle.step(), short_cycle.step();
  CHECK(error_of([&] { short_cycle.step(); }) == "OneCycleLR: tried to step 3 times; the total number of steps is 2");
  ReduceLROnPlateau plateau(s.sgd);
  CHECK(error_of([&] { static_cast<Scheduler&>(plateau).step(); }) ==
        "ReduceLROnPlateau: step(metric) needs the metric");
  CHECK(error_of([&] { SequentialLR(s.sgd, {std::make_shared<StepLR>(s.sgd, 2)}, {1}); }) ==
        "SequentialLR: expects one scheduler more than milestones, got 1 and 1");
  StepLR step_lr(s.sgd, 2);
  CHECK(
      error_of([&] { step_lr.load_state_dict({}); }) ==
      "scheduler: load_state_dict: missing or of another length: last_epoch, step_count, base_lrs, last_lr, step_size, "
      "gamma");
}
