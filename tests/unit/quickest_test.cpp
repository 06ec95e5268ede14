// SPDX-License-Identifier: Apache-2.0
#include <loom/accelerators/quickest.h>

#include <limits>
#include <vector>

#include <doctest/doctest.h>

using loom::quickest;

namespace {

using Time = std::optional<double>;

}  // namespace

TEST_CASE("quickest: the least time, whatever the order") {
  for (const std::vector<double>& times : {std::vector<double>{3, 1, 2}, {1, 2, 3}, {2, 3, 1}}) {
    const auto chosen = quickest(times.size(), [&](size_t i) { return Time(times[i]); });
    REQUIRE(chosen.has_value());
    CHECK(times[*chosen] == 1);
  }
}

TEST_CASE("quickest: what was timed before the clock counts is not compared") {
  std::vector<int> calls(2, 0);
  const auto chosen = quickest(2, [&](size_t i) { return Time(calls[i]++ == 0 && i == 1 ? 100 : 2.0 - double(i)); });
  CHECK(chosen == 1);
}

TEST_CASE("quickest: one slow turn does not decide") {
  std::vector<int> calls(2, 0);
  const auto chosen =
      quickest(2, [&](size_t i) { return Time(calls[i]++ == 3 && i == 1 ? 100 : 2.0 - 0.5 * double(i)); });
  CHECK(chosen == 1);
}

TEST_CASE("quickest: of ways that take about as long, the first") {
  CHECK(quickest(3, [](size_t i) { return Time(i == 0 ? 2.0 : i == 1 ? 1.01 : 1.0); }) == 1);
}

TEST_CASE("quickest: ways that fail are passed over, and not tried again") {
  std::vector<int> calls(4, 0);
  const auto chosen = quickest(4, [&](size_t i) -> Time {
    ++calls[i];
    if (i == 0 || (i == 2 && calls[i] == 3)) return std::nullopt;
    return i == 2 ? 1.0 : i == 1 ? 1.5 : 1.8;
  });
  CHECK(chosen == 1);
  CHECK(calls[0] == 1);
  CHECK(calls[2] == 3);
}

TEST_CASE("quickest: a way that takes much longer is given up after one turn") {
  std::vector<int> calls(2, 0);
  CHECK(quickest(2, [&](size_t i) {
          ++calls[i];
          return Time(i == 0 ? 10.0 : 1.0);
        }) == 1);
  CHECK(calls[0] == 2);
  CHECK(calls[1] > 3);
}

TEST_CASE("quickest: none works, or there is none") {
  CHECK(!quickest(3, [](size_t) { return Time(); }).has_value());
  CHECK(!quickest(0, [](size_t) { return Time(1); }).has_value());
}

TEST_CASE("quickest: times of zero, as clocks of coarse ticks give them") {
  CHECK(quickest(3, [](size_t i) { return Time(i == 0 ? 1.0 : 0.0); }) == 1);
}
