// One result: a line of JSON.
#pragma once

#include <iostream>
#include <string>
#include <vector>

#include <loom/accelerators/error.h>

namespace bench {

class Record {
 public:
  // What was measured, and the number: units are samples/s, GB/s, GFLOP/s (more is better), s, ms, us, ns, MiB (less).
  Record(const std::string& what, double value, const std::string& unit)
      : line_("{\"case\": \"" + what + "\", \"value\": " + loom::text::number(value) + ", \"unit\": \"" + unit + "\"") {
  }

  Record& add(const std::string& key, double value) {
    line_ += ", \"" + key + "\": " + loom::text::number(value);
    return *this;
  }
  Record& add(const std::string& key, const std::string& text) {
    line_ += ", \"" + key + "\": \"" + text + '"';
    return *this;
  }
  Record& add(const std::string& key, const std::vector<double>& values) {
    line_ += ", \"" + key + "\": [";
    for (size_t i = 0; i < values.size(); ++i) line_ += (i ? ", " : "") + loom::text::number(values[i]);
    line_ += ']';
    return *this;
  }

  void print() const { std::cout << line_ + "}\n" << std::flush; }

 private:
  std::string line_;
};

}  // namespace bench
