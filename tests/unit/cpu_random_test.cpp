#include <doctest/doctest.h>

#include <array>

#include "array.h"

#include <loom/accelerators/threads.h>

using namespace loom;
using namespace loom::testing;

namespace {

struct Moments {
  double mean = 0, deviation = 0, skew = 0, kurtosis = 0;
};

Moments moments_of(const Array& y) {
  const auto n = static_cast<double>(y.numel());
  Moments m;
  for (int64_t i = 0; i < y.numel(); ++i) m.mean += y[i] / n;
  double second = 0, third = 0, fourth = 0;
  for (int64_t i = 0; i < y.numel(); ++i) {
    const double d = y[i] - m.mean;
    second += d * d / n;
    third += d * d * d / n;
    fourth += d * d * d * d / n;
  }
  m.deviation = std::sqrt(second);
  m.skew = third / (second * m.deviation);
  m.kurtosis = fourth / (second * second);
  return m;
}

constexpr Philox state{.seed = 42, .stream = 3, .offset = 17};

}  // namespace

TEST_CASE("philox: known answers of the reference implementation") {
  using Words = std::array<uint32_t, 4>;
  const uint64_t ones = ~uint64_t{0};
  CHECK(Philox{0, 0, 0}.block(0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(Philox{ones, ones, ones}.block(0) == Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  const Philox pi{0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88};
  CHECK(pi.block(0) == Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("random: element i takes its words by position, whatever the shape, layout and number of threads") {
  const int64_t n = 20011;
  Array flat(f32, {n}), wide(f64, {n}), whole(i64, {n});
  cpu().random(Random::uniform, flat, 0, 1, state);
  cpu().random(Random::uniform, wide, 0, 1, state);
  cpu().random(Random::integers, whole, 0, 0x1p62, state);
  for (int64_t i = 0; i < n; ++i) {
    const auto w = state.block(static_cast<uint64_t>(i / 4)), v = state.block(static_cast<uint64_t>(i / 2));
    const auto k = static_cast<size_t>(i % 4), h = static_cast<size_t>(i % 2 * 2);
    REQUIRE(flat[i] == to_uniform(w[k]));
    REQUIRE(wide[i] == to_uniform(v[h], v[h + 1]));
    REQUIRE(whole.view().as<int64_t>()[i] == static_cast<int64_t>((uint64_t{v[h + 1]} << 32 | v[h]) >> 2));
  }
  const int before = num_threads();
  for (const Random kind : {Random::uniform, Random::normal, Random::bernoulli}) {
    for (const DType t : floating_dtypes) {
      Array one(t, {33, 31, 7}), other(t, {33, 31, 7}, {1, 33, 33 * 31});
      set_num_threads(1);
      cpu().random(kind, one, 0.25, 1, state);
      set_num_threads(3);
      cpu().random(kind, other, 0.25, 1, state);
      CHECK(one.values() == other.values());
    }
  }
  set_num_threads(before);
}

TEST_CASE("random: a longer draw begins like a shorter one") {
  for (const Random kind : {Random::uniform, Random::normal})
    for (const DType t : floating_dtypes)
      for (const int64_t n : odd_sizes) {
        Array shorter(t, {n}), longer(t, {n + 1000});
        cpu().random(kind, shorter, 0, 1, state);
        cpu().random(kind, longer, 0, 1, state);
        bool same = true;
        for (int64_t i = 0; i < n; ++i) same &= shorter[i] == longer[i];
        CHECK(same);
      }
}

TEST_CASE("random: uniform numbers lie in [a, b) in every dtype") {
  for (const DType t : floating_dtypes)
    for (const auto& [a, b] :
         {std::pair{0.0, 1.0}, {-1.0, 0.0}, {-3.0, 1.5}, {1.0, 1.01}, {-0.5, 0.5}, {100.0, 101.0}}) {
      Array y(t, {50001});
      cpu().random(Random::uniform, y, a, b, state);
      double low = b, high = a;
      for (int64_t i = 0; i < y.numel(); ++i) {
        low = std::min(low, y[i]);
        high = std::max(high, y[i]);
      }
      CHECK(low >= a);
      CHECK(high < b);
    }
}

TEST_CASE("random: moments") {
  for (const DType t : floating_dtypes) {
    Array y(t, {200000});
    cpu().random(Random::uniform, y, -1, 3, state);
    Moments m = moments_of(y);
    CHECK(std::abs(m.mean - 1) < 0.02);
    CHECK(std::abs(m.deviation - 4 / std::sqrt(12)) < 0.02);
    cpu().random(Random::normal, y, 2, 3, state);
    m = moments_of(y);
    CHECK(std::abs(m.mean - 2) < 0.03);
    CHECK(std::abs(m.deviation - 3) < 0.03);
    CHECK(std::abs(m.skew) < 0.03);
    CHECK(std::abs(m.kurtosis - 3) < 0.06);
  }
  for (const DType t : all_dtypes) {
    Array y(t, {200000});
    cpu().random(Random::bernoulli, y, 0.3, 0, state);
    const Moments m = moments_of(y);
    CHECK(std::abs(m.mean - 0.3) < 0.005);
    CHECK(std::abs(m.deviation - std::sqrt(0.21)) < 0.005);
  }
}

TEST_CASE("random: normal numbers are Box and Muller's to rounding") {
  Array y(f32, {4096}), z(f64, {4096});
  cpu().random(Random::normal, y, 0, 1, state);
  cpu().random(Random::normal, z, 0, 1, state);
  const double turn = 2 * 3.14159265358979323846;
  for (int64_t i = 0; i < 4096; i += 2) {
    const auto w = state.block(static_cast<uint64_t>(i / 4)), v = state.block(static_cast<uint64_t>(i / 2));
    const auto k = static_cast<size_t>(i % 4);
    const double u = to_uniform(w[k]), angle = turn * to_uniform(w[k + 1]), radius = std::sqrt(-2 * std::log(1 - u));
    REQUIRE(std::abs(y[i] - radius * std::cos(angle)) < 2e-6);
    REQUIRE(std::abs(y[i + 1] - radius * std::sin(angle)) < 2e-6);
    const double wide = std::sqrt(-2 * std::log(1 - to_uniform(v[0], v[1]))), direction = turn * to_uniform(v[2], v[3]);
    REQUIRE(std::abs(z[i] - wide * std::cos(direction)) < 1e-14);
    REQUIRE(std::abs(z[i + 1] - wide * std::sin(direction)) < 1e-14);
  }
}

TEST_CASE("random: integers cover [a, b)") {
  for (const DType t : {i64, i32, u8, f32}) {
    Array y(t, {10000});
    cpu().random(Random::integers, y, 3, 8, state);
    std::array<int, 8> count{};
    for (int64_t i = 0; i < y.numel(); ++i) ++count.at(static_cast<size_t>(y[i]));
    for (size_t i = 0; i < 8; ++i) CHECK(std::abs(count[i] - (i < 3 ? 0 : 2000)) < 200);
  }
  Array y(i64, {100});
  cpu().random(Random::integers, y, -5, -4, state);
  CHECK(y.values() == std::vector<double>(100, -5));
}

TEST_CASE("dropout: a large output that begins anywhere has the bits of small ones") {
  const int64_t n = 4'200'003;  // 17 MB: past the caches
  const std::vector<float> x(static_cast<size_t>(n), 2);
  std::vector<float> y(static_cast<size_t>(n) + 1, 7);
  std::vector<uint8_t> mask(static_cast<size_t>(n) + 1, 7);
  for (const int64_t shift : {0, 1}) {
    const auto view = [&](const void* data, DType t) { return View{const_cast<void*>(data), t, {}, {n}, {1}}; };
    cpu().dropout(view(y.data() + shift, f32), view(mask.data() + shift, boolean), view(x.data(), f32), 50000, 1.5,
                  state);
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t word = state.block(static_cast<uint64_t>(i / 8))[static_cast<size_t>(i % 8 / 2)];
      const bool kept = (i % 2 == 0 ? word & 0xffffu : word >> 16) < 50000;
      const auto at = static_cast<size_t>(i + shift);
      wrong += y[at] != (kept ? 3 : 0) || mask[at] != (kept ? 1 : 0);
    }
    CHECK(wrong == 0);
    if (shift == 0) CHECK(y.back() == 7);  // nothing beyond
  }
}

TEST_CASE("dropout: all values kept, none, and more than there are") {
  const int64_t n = 1003;
  const Array x(f32, {n}, [](int64_t) { return 2; });
  Array y(f32, {n}), mask(boolean, {n});
  const auto drop = [&](uint32_t kept) { cpu().dropout(y, mask, x, kept, 1.5, state); };
  for (const uint32_t kept : {65536u, 0u}) {
    drop(kept);
    CHECK(y.values() == std::vector<double>(n, kept == 0 ? 0 : 3));
    CHECK(mask.values() == std::vector<double>(n, kept == 0 ? 0 : 1));
  }
  CHECK(error_of([&] { drop(65537); }) == "dropout: keeps 65537 of the 65536 values of 16 bits");
}

TEST_CASE("random: certainty, empty, and dtypes that do not fit") {
  Array y(boolean, {1000}), empty(f32, {0}), whole(i64, {1});
  cpu().random(Random::bernoulli, y, 1, 0, state);
  CHECK(y.values() == std::vector<double>(1000, 1));
  cpu().random(Random::bernoulli, y, 0, 0, state);
  CHECK(y.values() == std::vector<double>(1000, 0));
  cpu().random(Random::normal, empty, 0, 1, state);
  CHECK(error_of([&] { cpu().random(Random::normal, whole, 0, 1, state); }) ==
        "normal: expects a floating dtype, got i64");
}
