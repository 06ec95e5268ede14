// Where metrics go. Called on the first rank only.
#pragma once

#include <map>
#include <optional>
#include <string>

namespace loom {

using Metrics = std::map<std::string, double>;

class Logger {
 public:
  virtual ~Logger() = default;
  virtual void log_metrics(const Metrics& metrics, std::optional<int64_t> step) = 0;
  virtual void finalize() {}
};

}  // namespace loom
