#include <loom/fabric/progress.h>

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include <loom/distributed/mpi.h>

namespace loom {

namespace {

std::string clock_text(double seconds) {
  const auto s = static_cast<int64_t>(std::llround(std::max(0.0, seconds)));
  return s >= 3600 ? fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
                   : fmt::format("{}:{:02}", s / 60, s % 60);
}

std::string bar_text(double fraction) {
  constexpr int width = 24;
  const int full = static_cast<int>(std::clamp(fraction, 0.0, 1.0) * width);
  return "[" + std::string(static_cast<size_t>(full), '#') + std::string(static_cast<size_t>(width - full), '.') + "]";
}

// mpirun gives rank 0 a terminal of its own even where mpirun's output goes to a file, so a rank does not trust isatty.
bool writes_to_terminal() {
  const char* const wish = std::getenv("LOOM_PROGRESS");
  if (wish != nullptr && *wish != '\0') return std::string_view(wish) == "bar";
  return isatty(STDOUT_FILENO) == 1 && !started_by_mpi();
}

}  // namespace

Progress::Progress(ProgressOptions options)
    : options_(std::move(options)),
      terminal_(writes_to_terminal()),
      done_(options_.first),
      start_(Clock::now()),
      last_(start_) {}

bool Progress::due() const {
  if (!options_.enabled) return false;
  const auto since = Clock::now() - last_;
  return done_ == options_.total || since >= (terminal_ ? std::chrono::milliseconds(100) : options_.interval);
}

void Progress::print(double loss) {
  last_ = Clock::now();
  printed_ = true;
  const double seconds = std::chrono::duration<double>(last_ - start_).count();
  const double rate = static_cast<double>(done_ - options_.first) / std::max(seconds, 1e-9);
  const double left = static_cast<double>(options_.total - done_) / std::max(rate, 1e-9);
  const std::string speed =
      options_.samples_per_step > 0
          ? fmt::format("{:.0f} {}/s", rate * static_cast<double>(options_.samples_per_step), options_.unit)
          : fmt::format("{:.1f} steps/s", rate);
  const std::string text = fmt::format("{} {}/{}  loss {:.4f}  {}  ETA {}", options_.title, done_, options_.total, loss,
                                       speed, clock_text(left));
  if (terminal_) {
    const double fraction = options_.total > 0 ? static_cast<double>(done_) / static_cast<double>(options_.total) : 1;
    fmt::print("\r{} {}\x1b[K", bar_text(fraction), text);
  } else {
    fmt::print("{}\n", text);
  }
  std::fflush(stdout);
}

// On a terminal in place of the bar, which the next step draws below.
void Progress::print_line(const std::string& text) {
  fmt::print("{}{}{}\n", terminal_ ? "\r" : "", text, terminal_ ? "\x1b[K" : "");
  std::fflush(stdout);
  printed_ = false;
}

Progress::~Progress() {
  if (terminal_ && printed_) std::putchar('\n');
  std::fflush(stdout);
}

}  // namespace loom
