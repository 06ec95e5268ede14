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

 private:
  using Clock = std::chrono::steady_clock;
  bool due() const;
  void print(double loss);

  ProgressOptions options_;
  bool terminal_;
  int64_t done_;
  Clock::time_point start_, last_;
  bool printed_ = false;
};

}  // namespace loom
