#include <loom/nn/optim/decay.h>

#include <algorithm>
#include <cmath>

namespace loom::optim {

StepLR::StepLR(Optimizer& optimizer, int64_t step_size, double gamma)
    : Scheduler(optimizer), step_size_(step_size), gamma_(gamma) {
  check(step_size > 0, "StepLR: expected a positive step_size, got ", step_size);
  start();
}

std::vector<double> StepLR::get_lr() {
  if (last_epoch_ == 0 || last_epoch_ % step_size_ != 0) return present_lr();
  return from_groups([&](double lr) { return lr * gamma_; });
}

std::vector<double> StepLR::closed_form() {
  const auto decays = last_epoch_ / step_size_;
  const double factor = std::pow(gamma_, static_cast<double>(decays));
  return from_initial([&](double lr) { return lr * factor; });
}

void StepLR::visit_state(const Visit& visit) {
  visit_number(visit, "step_size", step_size_);
  visit_number(visit, "gamma", gamma_);
}

MultiStepLR::MultiStepLR(Optimizer& optimizer, std::vector<int64_t> milestones, double gamma)
    : Scheduler(optimizer), milestones_(std::move(milestones)), gamma_(gamma) {
  std::sort(milestones_.begin(), milestones_.end());
  start();
}

std::vector<double> MultiStepLR::get_lr() {
  const auto times = std::count(milestones_.begin(), milestones_.end(), last_epoch_);
  if (times == 0) return present_lr();
  return from_groups([&](double lr) { return lr * std::pow(gamma_, static_cast<double>(times)); });
}

std::vector<double> MultiStepLR::closed_form() {
  const auto passed = std::upper_bound(milestones_.begin(), milestones_.end(), last_epoch_) - milestones_.begin();
  return from_initial([&](double lr) { return lr * std::pow(gamma_, static_cast<double>(passed)); });
}

void MultiStepLR::visit_state(const Visit& visit) {
  std::vector<double> numbers(milestones_.begin(), milestones_.end());
  visit("milestones", numbers);
  milestones_.assign(numbers.begin(), numbers.end());
  visit_number(visit, "gamma", gamma_);
}

ExponentialLR::ExponentialLR(Optimizer& optimizer, double gamma) : Scheduler(optimizer), gamma_(gamma) { start(); }

std::vector<double> ExponentialLR::get_lr() {
  if (is_initial_) return present_lr();
  return from_groups([&](double lr) { return lr * gamma_; });
}

std::vector<double> ExponentialLR::closed_form() {
  return from_initial([&](double lr) { return lr * std::pow(gamma_, static_cast<double>(last_epoch_)); });
}

void ExponentialLR::visit_state(const Visit& visit) { visit_number(visit, "gamma", gamma_); }

ConstantLR::ConstantLR(Optimizer& optimizer, double factor, int64_t total_iters)
    : Scheduler(optimizer), factor_(factor), total_iters_(total_iters) {
  check(factor >= 0 && factor <= 1, "ConstantLR: factor expected to be between 0 and 1, got ", factor);
  start();
}

std::vector<double> ConstantLR::get_lr() {
  if (last_epoch_ == 0) return from_groups([&](double lr) { return lr * factor_; });
  if (last_epoch_ != total_iters_) return present_lr();
  return from_groups([&](double lr) { return lr * (1.0 / factor_); });
}

std::vector<double> ConstantLR::closed_form() {
  return from_initial([&](double lr) { return lr * (factor_ + (last_epoch_ >= total_iters_ ? 1 - factor_ : 0)); });
}

void ConstantLR::visit_state(const Visit& visit) {
  visit_number(visit, "factor", factor_);
  visit_number(visit, "total_iters", total_iters_);
}

LinearLR::LinearLR(Optimizer& optimizer, const LinearLROptions& options) : Scheduler(optimizer), options_(options) {
  check(options.start_factor > 0 && options.start_factor <= 1,
        "LinearLR: start_factor expected to be greater than 0 and at most 1, got ", options.start_factor);
  check(options.end_factor >= 0 && options.end_factor <= 1, "LinearLR: end_factor expected to be between 0 and 1, got ",
        options.end_factor);
  start();
}

std::vector<double> LinearLR::get_lr() {
  const auto [first, last, total_iters] = options_;
  const auto total = static_cast<double>(total_iters), epoch = static_cast<double>(last_epoch_);
  if (last_epoch_ == 0) return from_groups([&, factor = first](double lr) { return lr * factor; });
  if (is_initial_ || last_epoch_ > total_iters) return present_lr();
  const double factor = 1.0 + (last - first) / (total * first + (epoch - 1) * (last - first));
  return from_groups([&](double lr) { return lr * factor; });
}

std::vector<double> LinearLR::closed_form() {
  const double first = options_.start_factor, last = options_.end_factor;
  const auto passed = static_cast<double>(std::min(options_.total_iters, last_epoch_));
  const double factor = first + (last - first) * passed / static_cast<double>(options_.total_iters);
  return from_initial([&](double lr) { return lr * factor; });
}

void LinearLR::visit_state(const Visit& visit) {
  visit_number(visit, "start_factor", options_.start_factor);
  visit_number(visit, "end_factor", options_.end_factor);
  visit_number(visit, "total_iters", options_.total_iters);
}

PolynomialLR::PolynomialLR(Optimizer& optimizer, int64_t total_iters, double power)
    : Scheduler(optimizer), total_iters_(total_iters), power_(power) {
  start();
}

std::vector<double> PolynomialLR::get_lr() {
  if (is_initial_ || last_epoch_ > total_iters_) return present_lr();
  const auto total = static_cast<double>(total_iters_), epoch = static_cast<double>(last_epoch_);
  const double factor = std::pow((1.0 - epoch / total) / (1.0 - (epoch - 1) / total), power_);
  return from_groups([&](double lr) { return lr * factor; });
}

std::vector<double> PolynomialLR::closed_form() {
  const auto passed = static_cast<double>(std::min(total_iters_, last_epoch_));
  const double factor = std::pow(1.0 - passed / static_cast<double>(total_iters_), power_);
  return from_initial([&](double lr) { return lr * factor; });
}

void PolynomialLR::visit_state(const Visit& visit) {
  visit_number(visit, "total_iters", total_iters_);
  visit_number(visit, "power", power_);
}

LambdaLR::LambdaLR(Optimizer& optimizer, const Factor& factor)
    : LambdaLR(optimizer, std::vector<Factor>(optimizer.param_groups().size(), factor)) {}

LambdaLR::LambdaLR(Optimizer& optimizer, std::vector<Factor> factors)
    : Scheduler(optimizer), factors_(std::move(factors)) {
  check(factors_.size() == optimizer.param_groups().size(), "LambdaLR: expected ", optimizer.param_groups().size(),
        " functions, one per parameter group, got ", factors_.size());
  start();
}

std::vector<double> LambdaLR::get_lr() {
  std::vector<double> out;
  for (size_t i = 0; i < factors_.size(); ++i) out.push_back(base_lrs_[i] * factors_[i](last_epoch_));
  return out;
}

}  // namespace loom::optim
