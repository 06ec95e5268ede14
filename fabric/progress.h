// How far a loop is: a bar on a terminal, a line every few seconds elsewhere. LOOM_PROGRESS=bar or lines decides where
// that guess is wrong (under mpirun it is lines).
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace loom {

struct ProgressOptions {
  std::string title = {};
  int64_t total = 0;                 // steps
  int64_t first = 0;                 // steps already done: a resumed loop
  int64_t samples_per_step = 0;      // over all ranks; 0: steps/s is shown
  std::string unit = "samples";      // what these are: "tokens"
  bool enabled = true;               // false: prints nothing (other ranks)
  std::chrono::seconds interval{5};  // between lines where the output is no terminal
};

class Progress {
 public:
  explicit Progress(ProgressOptions options);
  ~Progress();  // ends the line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // After each step. The loss is read from a function, and only when something is printed: reading a device waits for
  // it.
  template <class Loss>
  void step(const Loss& loss) {
    ++done_;
    if (due()) print(loss());
  }
  // Something between two steps, an evaluation: its time is not the steps', and what it returns is a line of its own.
  template <class F>
  void between(const F& f) {
    const auto begin = Clock::now();
    const std::string text = f();
    start_ += Clock::now() - begin;
    if (options_.enabled) print_line(text);
  }

 private:
  using Clock = std::chrono::steady_clock;
  bool due() const;
  void print(double loss);
  void print_line(const std::string& text);

  ProgressOptions options_;
  bool terminal_;
  int64_t done_;
  Clock::time_point start_, last_;
  bool printed_ = false;  // the present line
};

}  // namespace loom
