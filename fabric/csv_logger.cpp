#include <loom/fabric/csv_logger.h>

#include <algorithm>
#include <charconv>

#include <loom/accelerators/error.h>
#include <loom/tensor/atomic_file.h>

namespace loom {

namespace {

// N of "version_N", or -1.
int version_number(const std::string& name) {
  constexpr std::string_view prefix = "version_";
  if (!name.starts_with(prefix)) return -1;
  int n = -1;
  const char* const first = name.data() + prefix.size();
  const char* const last = name.data() + name.size();
  const auto [end, status] = std::from_chars(first, last, n);
  return status == std::errc() && end == last ? n : -1;
}

std::string next_version(const std::filesystem::path& parent) {
  int highest = -1;
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(parent, missing))
    highest = std::max(highest, version_number(entry.path().filename().string()));
  return "version_" + std::to_string(highest + 1);
}

void make_directories(const std::filesystem::path& path) {
  std::error_code status;
  std::filesystem::create_directories(path, status);
  check(!status, "CsvLogger: cannot make the directory ", path.string(), ": ", status.message());
}

}  // namespace

CsvLogger::CsvLogger(CsvLoggerOptions options) : options_(std::move(options)), columns_{"step"} {}

std::filesystem::path CsvLogger::directory() {
  if (!directory_.empty()) return directory_;
  const auto parent = options_.root / options_.name;
  if (!options_.version.empty()) return directory_ = parent / options_.version;
  make_directories(parent);
  std::error_code status;
  std::filesystem::path candidate;
  do {  // who makes the directory has it: two programs may start at once
    candidate = parent / next_version(parent);
  } while (!std::filesystem::create_directory(candidate, status) && !status);
  check(!status, "CsvLogger: cannot make the directory ", candidate.string(), ": ", status.message());
  return directory_ = candidate;
}

std::string CsvLogger::line_of(const std::map<std::string, std::string>& row) const {
  std::string line;
  for (const std::string& column : columns_) {
    if (column != *columns_.begin()) line += ',';
    if (const auto found = row.find(column); found != row.end()) line += found->second;
  }
  return line + "\n";
}

void CsvLogger::rewrite() {
  std::string text, header;
  for (const std::string& column : columns_) header += (header.empty() ? "" : ",") + column;
  text = header + "\n";
  for (const auto& row : rows_) text += line_of(row);
  file_.close();
  write_file_atomically(directory() / "metrics.csv", text, "CsvLogger");
  file_.open(directory() / "metrics.csv", std::ios::app);
  check(file_.good(), "CsvLogger: cannot write to ", (directory() / "metrics.csv").string());
}

void CsvLogger::log_metrics(const Metrics& metrics, std::optional<int64_t> step) {
  const int64_t number = step.value_or(next_step_);
  next_step_ = number + 1;
  std::map<std::string, std::string> row{{"step", std::to_string(number)}};
  bool wider = !file_.is_open();
  for (const auto& [name, value] : metrics) {
    check(name.find_first_of(",\"\n\r") == std::string::npos, "CsvLogger: the metric name '", name,
          "' must not contain commas, quotes or line ends");
    check(name != "step", "CsvLogger: 'step' is the column of the step, not the name of a metric; pass it as the step");
    row[name] = text::number(value);
    wider = columns_.insert(name).second || wider;
  }
  rows_.push_back(row);
  if (wider) {
    make_directories(directory());
    rewrite();
    return;
  }
  file_ << line_of(row) << std::flush;
  check(file_.good(), "CsvLogger: cannot write to ", (directory() / "metrics.csv").string());
}

}  // namespace loom
