#include <loom/data/readers/csv.h>

#include <algorithm>
#include <charconv>
#include <numeric>

#include <loom/data/readers/compressed_file.h>
#include <loom/tensor/raw.h>

namespace loom::data {

namespace {

// Takes records off a text; lines are counted as an editor counts them.
class Records {
 public:
  Records(std::string_view text, char delimiter, std::string context)
      : text_(text), delimiter_(delimiter), context_(std::move(context)) {
    if (text_.starts_with("\xEF\xBB\xBF")) at_ = 3;  // the mark that spreadsheets write
  }
  int64_t line() const { return line_; }  // where the last record began
  const std::string& context() const { return context_; }

  // False at the end. Empty lines are no records.
  bool next(std::vector<std::string>& fields) {
    while (at_ < text_.size() && (text_[at_] == '\n' || text_[at_] == '\r')) step();
    if (at_ == text_.size()) return false;
    line_ = next_line_;
    fields.clear();
    do fields.push_back(field());
    while (accept(delimiter_));
    accept('\r');
    accept('\n');
    return true;
  }

 private:
  void step() { next_line_ += text_[at_++] == '\n' ? 1 : 0; }
  bool accept(char c) {
    if (at_ == text_.size() || text_[at_] != c) return false;
    step();
    return true;
  }
  bool at_end_of_field() const {
    return at_ == text_.size() || text_[at_] == delimiter_ || text_[at_] == '\n' || text_[at_] == '\r';
  }
  std::string field() {
    std::string out;
    if (!accept('"')) {
      for (; !at_end_of_field(); step()) out += text_[at_];
      return out;
    }
    while (true) {
      check(at_ < text_.size(), context_, "line ", line_, ": a quoted field has no end");
      if (accept('"')) {
        if (!accept('"')) break;  // two quotes within a quoted field are one
        out += '"';
      } else {
        out += text_[at_];
        step();
      }
    }
    check(at_end_of_field(), context_, "line ", next_line_, ": something follows a quoted field");
    return out;
  }

  std::string_view text_;
  char delimiter_;
  std::string context_;
  size_t at_ = 0;
  int64_t line_ = 1, next_line_ = 1;
};

std::string_view trimmed(std::string_view s) {
  const auto first = s.find_first_not_of(" \t");
  return first == std::string_view::npos ? "" : s.substr(first, s.find_last_not_of(" \t") - first + 1);
}

std::vector<size_t> selected(const std::vector<std::string>& names, const CsvOptions& options,
                             const std::string& context) {
  std::vector<size_t> out(options.columns.size());
  if (options.columns.empty()) {
    out.resize(names.size());
    std::iota(out.begin(), out.end(), size_t{0});
  }
  for (size_t i = 0; i < options.columns.size(); ++i) {
    const std::string& wanted = options.columns[i];
    const auto found = std::find(names.begin(), names.end(), wanted);
    out[i] = static_cast<size_t>(found - names.begin());
    if (found != names.end()) continue;
    const auto [end, error] = std::from_chars(wanted.data(), wanted.data() + wanted.size(), out[i]);
    std::string known;
    for (const std::string& name : names) known += (known.empty() ? "" : ", ") + name;
    check(error == std::errc() && end == wanted.data() + wanted.size() && out[i] < names.size(), context,
          "no column \"", wanted, "\"; there are ", known);
  }
  return out;
}

// What an integer of this dtype may be; a cast would wrap it around.
bool fits(int64_t value, DType dtype) {
  switch (dtype) {
    case DType::i32:
      return value == static_cast<int32_t>(value);
    case DType::u8:
      return value == static_cast<uint8_t>(value);
    case DType::boolean:
      return value == 0 || value == 1;
    default:
      return true;
  }
}
bool fits(double, DType) { return true; }

// Integers go their own way: a double holds them exactly only up to 2^53.
template <class T>
class Cells {
 public:
  Cells(const Records& records, const std::vector<std::string>& names, const CsvOptions& options)
      : records_(records), names_(names), options_(options) {}

  void add(const std::vector<std::string>& fields, size_t column) {
    std::string_view text = trimmed(fields[column]);
    if (text.empty()) {
      check(options_.missing.has_value(), where(column),
            "the field is empty; set missing to give empty fields a value");
      values.push_back(static_cast<T>(*options_.missing));
      return;
    }
    if (text.size() > 1 && text[0] == '+' && text[1] != '-') text.remove_prefix(1);
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    check(error == std::errc() && end == text.data() + text.size(), where(column), "expects a",
          std::is_integral_v<T> ? "n integer" : " number", ", got \"", text, "\"");
    check(fits(value, options_.dtype), where(column), text, " is out of the range of ", options_.dtype);
    values.push_back(value);
  }
  std::vector<T> values;

 private:
  std::string where(size_t column) const {
    return str(records_.context(), "line ", records_.line(), ", column ", column + 1, " (", names_[column], "): ");
  }
  const Records& records_;
  const std::vector<std::string>& names_;
  const CsvOptions& options_;
};

template <class T>
CsvTable parse(Records& records, const CsvOptions& options) {
  std::vector<std::string> fields, names;
  bool more = records.next(fields);
  check(more, records.context(), "the file has no lines");
  for (size_t i = 0; i < fields.size(); ++i)
    names.push_back(options.header ? std::string(trimmed(fields[i])) : std::to_string(i));
  if (options.header) more = records.next(fields);

  const auto columns = selected(names, options, records.context());
  Cells<T> cells(records, names, options);
  int64_t rows = 0;
  for (; more; more = records.next(fields), ++rows) {
    check(fields.size() == names.size(), records.context(), "line ", records.line(), ": has ", fields.size(),
          " fields, expects ", names.size(), " as in the first line");
    for (const size_t column : columns) cells.add(fields, column);
  }
  CsvTable out;
  for (const size_t column : columns) out.columns.push_back(names[column]);
  out.values =
      from_vector(cells.values, Dims{rows, static_cast<int64_t>(columns.size())}, {options.dtype, Device::cpu});
  return out;
}

}  // namespace

CsvTable parse_csv(std::string_view text, const CsvOptions& options, const std::string& context) {
  check(options.delimiter != '"' && options.delimiter != '\n' && options.delimiter != '\r', context,
        "a quote or a line end cannot be the delimiter");
  Records records(text, options.delimiter, context);
  return is_floating(options.dtype) ? parse<double>(records, options) : parse<int64_t>(records, options);
}

CsvTable load_csv(const std::filesystem::path& path, const CsvOptions& options) {
  CompressedFile file(path, "csv");
  return parse_csv(file.read_all(), options, file.context());
}

}  // namespace loom::data
