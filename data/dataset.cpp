#include <loom/data/dataset.h>

#include <numeric>

namespace loom::data {

std::vector<int64_t> split_sizes(int64_t total, const std::vector<double>& lengths) {
  const double sum = std::accumulate(lengths.begin(), lengths.end(), 0.0);
  const bool fractions = std::abs(sum - 1) < 1e-6 && total != 1;
  for (const double length : lengths)
    check(length >= 0 && (fractions || length == std::floor(length)), "random_split: length ", length,
          ", expects counts that add up to ", total, ", or fractions that add up to 1");
  check(fractions || sum == static_cast<double>(total), "random_split: the lengths add up to ", sum, ", expects ",
        total, " or, for fractions, 1");
  std::vector<int64_t> out;
  out.reserve(lengths.size());
  for (const double length : lengths)
    out.push_back(static_cast<int64_t>(fractions ? std::floor(static_cast<double>(total) * length) : length));
  int64_t rest = total - std::accumulate(out.begin(), out.end(), int64_t{0});
  for (size_t i = 0; rest > 0; i = (i + 1) % out.size(), --rest) ++out[i];
  return out;
}

}  // namespace loom::data
