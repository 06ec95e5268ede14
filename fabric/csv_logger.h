// Metrics as CSV, in Lightning's layout: <root>/<name>/version_<N>/metrics.csv.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <loom/fabric/logger.h>

namespace loom {

struct CsvLoggerOptions {
  std::filesystem::path root = "logs";
  std::string name = "lightning_logs";
  // Empty: version_<highest so far + 1>. Rows are added to those that a version has: nothing is overwritten.
  std::string version = {};
};

// Columns are the sorted names seen so far, "step" included; a row has the values logged in one call, the rest empty.
// Rows are on disk when log_metrics returns; a new name rewrites the file (atomically) with the wider header.
class CsvLogger final : public Logger {
 public:
  explicit CsvLogger(CsvLoggerOptions options = {});
  void log_metrics(const Metrics& metrics, std::optional<int64_t> step) override;
  void finalize() override {}
  // The directory. Without a version one is made here, for this logger alone; else with the first row.
  std::filesystem::path directory();

 private:
  using Row = std::map<std::string, std::string>;
  void start();
  std::vector<Row> rows_on_disk();
  void rewrite(const std::vector<Row>& rows);
  std::string line_of(const Row& row) const;

  CsvLoggerOptions options_;
  std::filesystem::path directory_, path_;
  std::set<std::string> columns_;
  std::ofstream file_;
  int64_t next_step_ = 0;
};

}  // namespace loom
