// Checks of the command line that CLI11 does not have.
#pragma once

#include <CLI/CLI.hpp>
#include <cmath>
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

}  // namespace loom
