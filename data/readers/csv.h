// Numbers from CSV files (RFC 4180: quoted fields, doubled quotes, line ends of either kind), plain or gzipped.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <loom/tensor/tensor.h>

namespace loom::data {

struct CsvOptions {
  char delimiter = ',';
  bool header = true;                // the first line names the columns
  std::vector<std::string> columns;  // those wanted, in this order, by name or (from 0) by number; empty: all
  std::optional<double> missing;     // what an empty field becomes; none: an Error
  DType dtype = DType::f32;
};

struct CsvTable {
  std::vector<std::string> columns;  // names; without a header "0", "1", ...
  Tensor values;                     // [rows, columns]
};

// Every line has as many fields as the first, and every wanted field is a number, else Error with line and column.
CsvTable load_csv(const std::filesystem::path& path, const CsvOptions& options = {});
CsvTable parse_csv(std::string_view text, const CsvOptions& options = {}, const std::string& context = "csv: ");

}  // namespace loom::data
