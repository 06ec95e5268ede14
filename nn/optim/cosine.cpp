#include <loom/nn/optim/cosine.h>

#include <cmath>
#include <numbers>

namespace loom::optim {

using std::numbers::pi;

CosineAnnealingLR::CosineAnnealingLR(Optimizer& optimizer, int64_t T_max, double eta_min)
    : Scheduler(optimizer), T_max_(T_max), eta_min_(eta_min) {
  check(T_max > 0, "CosineAnnealingLR: expected a positive T_max, got ", T_max);
  start();
}

std::vector<double> CosineAnnealingLR::get_lr() {
  if (is_initial_) return present_lr();
  const auto epoch = static_cast<double>(last_epoch_), period = static_cast<double>(T_max_);
  if (step_count_ == 1 && last_epoch_ > 0)
    return from_initial(
        [&](double lr) { return eta_min_ + (lr - eta_min_) * (1 + std::cos(epoch * pi / period)) / 2; });
  if ((last_epoch_ - 1 - T_max_) % (2 * T_max_) == 0) {
    // At the minimum the recurrence divides by zero: up from there by the closed form's difference.
    std::vector<double> out = present_lr();
    for (size_t i = 0; i < out.size(); ++i) out[i] += (base_lrs_[i] - eta_min_) * (1 - std::cos(pi / period)) / 2;
    return out;
  }
  const double factor = (1 + std::cos(pi * epoch / period)) / (1 + std::cos(pi * (epoch - 1) / period));
  return from_groups([&](double lr) { return factor * (lr - eta_min_) + eta_min_; });
}

std::vector<double> CosineAnnealingLR::closed_form() {
  const double turn = pi * static_cast<double>(last_epoch_) / static_cast<double>(T_max_);
  return from_initial([&](double lr) { return eta_min_ + (lr - eta_min_) * (1 + std::cos(turn)) / 2; });
}

void CosineAnnealingLR::visit_state(const Visit& visit) {
  visit_number(visit, "T_max", T_max_);
  visit_number(visit, "eta_min", eta_min_);
}

CosineAnnealingWarmRestarts::CosineAnnealingWarmRestarts(Optimizer& optimizer, int64_t T_0, int64_t T_mult,
                                                         double eta_min)
    : Scheduler(optimizer), T_0_(T_0), T_mult_(T_mult), eta_min_(eta_min), T_i_(static_cast<double>(T_0)) {
  check(T_0 > 0, "CosineAnnealingWarmRestarts: expected a positive T_0, got ", T_0);
  check(T_mult >= 1, "CosineAnnealingWarmRestarts: expected T_mult >= 1, got ", T_mult);
  start();
}

std::vector<double> CosineAnnealingWarmRestarts::get_lr() {
  return from_initial([&](double lr) { return eta_min_ + (lr - eta_min_) * (1 + std::cos(pi * T_cur_ / T_i_)) / 2; });
}

void CosineAnnealingWarmRestarts::advance() {
  if (last_epoch_ < 0) return step(0.0);
  T_cur_ += 1;
  if (T_cur_ >= T_i_) {
    T_cur_ = std::fmod(T_cur_, T_i_);
    T_i_ *= static_cast<double>(T_mult_);
  }
  ++last_epoch_;
  apply(get_lr());
}

void CosineAnnealingWarmRestarts::step(double epoch) {
  check(epoch >= 0, "CosineAnnealingWarmRestarts: expected a non-negative epoch, got ", epoch);
  const auto first = static_cast<double>(T_0_), growth = static_cast<double>(T_mult_);
  if (epoch < first) {
    T_i_ = first;
    T_cur_ = epoch;
  } else if (T_mult_ == 1) {
    T_cur_ = std::fmod(epoch, first);
  } else {
    const double n = std::floor(std::log(epoch / first * (growth - 1) + 1) / std::log(growth));
    T_cur_ = epoch - first * (std::pow(growth, n) - 1) / (growth - 1);
    T_i_ = first * std::pow(growth, n);
  }
  last_epoch_ = static_cast<int64_t>(std::floor(epoch));
  apply(get_lr());
}

void CosineAnnealingWarmRestarts::visit_state(const Visit& visit) {
  visit_number(visit, "T_0", T_0_);
  visit_number(visit, "T_mult", T_mult_);
  visit_number(visit, "eta_min", eta_min_);
  visit_number(visit, "T_cur", T_cur_);
  visit_number(visit, "T_i", T_i_);
}

}  // namespace loom::optim
