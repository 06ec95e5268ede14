// Checks of the command line that CLI11 does not have.
#pragma once

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include <loom/loom.h>

namespace loom {

// A finite number of this range. CLI::Range and CLI::NonNegativeNumber let NaN pass.
inline CLI::Validator number(double least = 0, double most = std::numeric_limits<double>::infinity()) {
  const std::string range = std::isfinite(most) ? str("from ", least, " to ", most) : str("of at least ", least);
  return CLI::Validator(
      [=](const std::string& text) {
        double value = 0;
        const bool good =
            CLI::detail::lexical_cast(text, value) && std::isfinite(value) && value >= least && value <= most;
        return good ? std::string() : str("Value ", text, " is not a finite number ", range);
      },
      "FLOAT " + range);
}

// CLI11 lets -1 and what is beyond 64 bits wrap around.
inline CLI::Validator seed_number() {
  return CLI::Validator(
      [](const std::string& text) {
        uint64_t value = 0;
        const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
        const bool good = status == std::errc() && end == text.data() + text.size();
        return good ? std::string() : str("Value ", text, " is not a whole number from 0 to 2^64 - 1");
      },
      "UINT");
}

}  // namespace loom
