#include <loom/fabric/csv_logger.h>

#include <algorithm>
#include <charconv>

#include <loom/accelerators/atomic_file.h>
#include <loom/accelerators/error.h>

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

std::vector<std::string> fields(const std::string& line) {
  std::vector<std::string> out;
  size_t begin = 0;
  for (size_t comma; (comma = line.find(',', begin)) != std::string::npos; begin = comma + 1)
    out.push_back(line.substr(begin, comma - begin));
  out.push_back(line.substr(begin));
  return out;
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

std::string CsvLogger::line_of(const Row& row) const {
  std::string line;
  for (const std::string& column : columns_) {
    if (column != *columns_.begin()) line += ',';
    if (const auto found = row.find(column); found != row.end()) line += found->second;
  }
  return line + "\n";
}

// Of a metrics.csv that is there, this logger's or another's: every row, by names.
std::vector<CsvLogger::Row> CsvLogger::rows_on_disk() {
  std::vector<Row> rows;
  std::ifstream file(path_);
  std::string line;
  if (!std::getline(file, line)) return rows;
  const std::vector<std::string> header = fields(line);
  check(std::find(header.begin(), header.end(), "step") != header.end(), "CsvLogger: ", path_.string(),
        " is there and has no column 'step', so it is not CsvLogger's; log to another version");
  columns_.insert(header.begin(), header.end());
  for (int64_t number = 2; std::getline(file, line); ++number) {
    std::vector<std::string> values = fields(line);
    if (file.eof()) values.resize(header.size());  // a line without its end: the program that wrote it was killed
    check(values.size() == header.size(), "CsvLogger: line ", number, " of ", path_.string(), " has ", values.size(),
          " fields, its header ", header.size(), "; log to another version");
    Row& row = rows.emplace_back();
    for (size_t i = 0; i < header.size(); ++i) row[header[i]] = values[i];
  }
  return rows;
}

// Writes the rows that are there under the present columns.
void CsvLogger::rewrite(const std::vector<Row>& rows) {
  std::string text, header;
  for (const std::string& column : columns_) header += (header.empty() ? "" : ",") + column;
  text = header + "\n";
  for (const Row& row : rows) text += line_of(row);
  file_.close();
  write_file_atomically(path_, text, "CsvLogger");
  file_.open(path_, std::ios::app);
  check(file_.good(), "CsvLogger: cannot write to ", path_.string());
}

// A file of that version is gone on with, steps too.
void CsvLogger::start() {
  make_directories(directory());
  path_ = directory() / "metrics.csv";
  const std::vector<Row> rows = rows_on_disk();
  if (!rows.empty()) {
    const std::string& last = rows.back().at("step");
    int64_t step = 0;
    const auto [end, status] = std::from_chars(last.data(), last.data() + last.size(), step);
    if (status == std::errc()) next_step_ = step + 1;
  }
  rewrite(rows);
}

void CsvLogger::log_metrics(const Metrics& metrics, std::optional<int64_t> step) {
  for (const auto& [name, value] : metrics) {
    check(name.find_first_of(",\"\n\r") == std::string::npos, "CsvLogger: the metric name '", name,
          "' must not contain commas, quotes or line ends");
    check(name != "step", "CsvLogger: 'step' is the column of the step, not the name of a metric; pass it as the step");
  }
  if (!file_.is_open()) start();
  const int64_t number = step.value_or(next_step_);
  next_step_ = number + 1;
  Row row{{"step", std::to_string(number)}};
  bool wider = false;
  for (const auto& [name, value] : metrics) {
    row[name] = text::number(value);
    wider = columns_.insert(name).second || wider;
  }
  if (wider) rewrite(rows_on_disk());
  file_ << line_of(row) << std::flush;
  check(file_.good(), "CsvLogger: cannot write to ", path_.string());
}

}  // namespace loom
