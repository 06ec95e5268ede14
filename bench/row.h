// A row of the benchmark: what the program can measure by name. The table of all rows is in main.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include <loom/accelerators/error.h>

namespace bench {

// key=value pairs of the command line.
class Options {
 public:
  void set(const std::string& key, const std::string& value) { values_[key] = value; }
  std::string text(const std::string& key, const std::string& otherwise = "") const {
    const auto found = values_.find(key);
    return found == values_.end() ? otherwise : found->second;
  }
  int64_t number(const std::string& key, int64_t otherwise) const {
    const std::string value = text(key);
    if (value.empty()) return otherwise;
    loom::check(value.find_first_not_of("0123456789") == std::string::npos, key, ": expected a number, got '", value,
                "'");
    return std::stoll(value);
  }
  // The smallest sizes, once: only to see that a row works.
  bool smoke() const { return number("smoke", 0) != 0; }

 private:
  std::map<std::string, std::string> values_;
};

struct Row {
  const char* name;
  const char* what;
  void (*run)(const Options& options);
};

void run_fixture(const Options& options);
void run_mlp(const Options& options);
void run_cnn(const Options& options);
void run_all_reduce(const Options& options);
void run_startup(const Options& options);
void run_micro(const Options& options);

}  // namespace bench
