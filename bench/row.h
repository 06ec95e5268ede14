// A row of the benchmark: what the program can measure by name. The table of all rows is in main.cpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

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
    return value.empty() ? otherwise : parsed(key, value);
  }
  // 784-128-10
  std::vector<int64_t> numbers(const std::string& key, const std::vector<int64_t>& otherwise) const {
    const std::string value = text(key);
    if (value.empty()) return otherwise;
    std::vector<int64_t> out;
    for (size_t begin = 0; begin <= value.size();) {
      const size_t end = std::min(value.find('-', begin), value.size());
      out.push_back(parsed(key, value.substr(begin, end - begin)));
      begin = end + 1;
    }
    return out;
  }
  bool flag(const std::string& key) const { return number(key, 0) != 0; }
  // The smallest sizes, once: only to see that a row works.
  bool smoke() const { return flag("smoke"); }

 private:
  static int64_t parsed(const std::string& key, const std::string& value) {
    loom::check(!value.empty() && value.find_first_not_of("0123456789") == std::string::npos, key,
                ": expected a number, got '", value, "'");
    return std::stoll(value);
  }

  std::map<std::string, std::string> values_;
};

struct Row {
  const char* name;
  const char* what;
  void (*run)(const Options& options);
};

void run_fixture(const Options& options);
void run_train(const Options& options);
void run_growth(const Options& options);
void run_collective(const Options& options);
void run_exposed(const Options& options);
void run_startup(const Options& options);
void run_fork_join(const Options& options);
void run_machine(const Options& options);
void run_micro(const Options& options);

}  // namespace bench
