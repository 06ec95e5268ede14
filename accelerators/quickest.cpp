#include <loom/accelerators/quickest.h>

#include <algorithm>
#include <limits>
#include <vector>

namespace loom {

namespace {

constexpr int rounds = 5;
constexpr double hopeless = 2;        // times the quickest, in the first round
constexpr double about_equal = 1.02;  // likewise, in the end

class Race {
 public:
  Race(size_t ways, const std::function<std::optional<double>(size_t)>& time) : time_(time), times_(ways) {
    for (size_t i = 0; i < ways; ++i)
      if (time_(i).has_value()) running_.push_back(i);
  }

  void round() {
    std::erase_if(running_, [this](size_t i) {
      const std::optional<double> taken = time_(i);
      if (taken.has_value()) times_[i].push_back(*taken);
      return !taken.has_value();
    });
  }

  // Leaves those whose median is at most so many times the least; which is never none of those that work.
  void keep(double times) {
    double least = std::numeric_limits<double>::infinity();
    for (const size_t i : running_) least = std::min(least, median(i));
    std::erase_if(running_, [&](size_t i) { return median(i) > times * least; });
  }

  std::optional<size_t> first() const { return running_.empty() ? std::nullopt : std::optional(running_.front()); }

 private:
  double median(size_t i) {
    std::vector<double>& all = times_[i];
    const auto middle = all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2);
    std::ranges::nth_element(all, middle);
    return *middle;
  }

  const std::function<std::optional<double>(size_t)>& time_;
  std::vector<std::vector<double>> times_;
  std::vector<size_t> running_;  // ascending
};

}  // namespace

std::optional<size_t> quickest(size_t ways, const std::function<std::optional<double>(size_t)>& time) {
  Race race(ways, time);
  race.round();
  race.keep(hopeless);
  for (int i = 1; i < rounds; ++i) race.round();
  race.keep(about_equal);
  return race.first();
}

}  // namespace loom
