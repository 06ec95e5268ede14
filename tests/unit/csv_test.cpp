// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <cmath>

#include <loom/data/readers/csv.h>

#include "temporary_folder.h"

using namespace loom;
using data::CsvOptions;
using data::load_csv;
using data::parse_csv;
using Names = std::vector<std::string>;
using Numbers = std::vector<double>;

namespace {

Numbers numbers(std::string_view text, const CsvOptions& options = {}) {
  return parse_csv(text, options).values.to_vector<double>();
}

std::string refusal(std::string_view text, const CsvOptions& options = {}) {
  try {
    parse_csv(text, options);
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

}  // namespace

TEST_CASE("csv: headers, delimiters, line ends") {
  const auto table = parse_csv("a,b c\r\n1,2.5\r\n-3,4e2\r\n");
  CHECK(table.columns == Names{"a", "b c"});
  CHECK(table.values.dtype() == f32);
  CHECK(table.values.shape() == Dims{2, 2});
  CHECK(table.values.to_vector<double>() == Numbers{1, 2.5, -3, 400});
  CHECK(numbers("1;2\n3;4", {.delimiter = ';', .header = false}) == Numbers{1, 2, 3, 4});
  CHECK(parse_csv("1\t2", {.delimiter = '\t', .header = false}).columns == Names{"0", "1"});
  CHECK(numbers("\xEF\xBB\xBF"
                "a,b\n\n 1 ,\t+2\n\n3,4\n\n") == Numbers{1, 2, 3, 4});
  CHECK(parse_csv("a,b\n").values.shape() == Dims{0, 2});
  CHECK(std::isnan(numbers("a\nnan")[0]));
}

TEST_CASE("csv: quoted fields") {
  const auto table = parse_csv("\"a,\"\"x\"\"\",\"b\nc\"\n\"1\",2\n3,\"4\"\n");
  CHECK(table.columns == Names{"a,\"x\"", "b\nc"});
  CHECK(table.values.to_vector<double>() == Numbers{1, 2, 3, 4});
  CHECK(refusal("a\n\"1") == "csv: line 2: a quoted field has no end");
  CHECK(refusal("a\n\"1\"2") == "csv: line 2: something follows a quoted field");
}

TEST_CASE("csv: columns are chosen by name or number; the others may hold anything") {
  const std::string text = "name,x,y\nada,1,2\nbob,3,4\n";
  CHECK(numbers(text, {.columns = {"y", "x"}}) == Numbers{2, 1, 4, 3});
  CHECK(numbers(text, {.columns = {"2"}}) == Numbers{2, 4});
  CHECK(parse_csv(text, {.columns = {"2"}}).columns == Names{"y"});
  CHECK(refusal(text, {.columns = {"z"}}) == "csv: no column \"z\"; there are name, x, y");
  CHECK(refusal(text, {.columns = {"3"}}) == "csv: no column \"3\"; there are name, x, y");
  CHECK(refusal(text) == "csv: line 2, column 1 (name): expects a number, got \"ada\"");
}

TEST_CASE("csv: missing values, short lines, wrong numbers") {
  CHECK(refusal("a,b\n1,\n") ==
        "csv: line 2, column 2 (b): the field is empty; set missing to give empty fields a value");
  CHECK(numbers("a,b\n1,\n,4\n", {.missing = -1}) == Numbers{1, -1, -1, 4});
  CHECK(refusal("a,b\n1,2\n3\n") == "csv: line 3: has 1 fields, expects 2 as in the first line");
  CHECK(refusal("\"a\nb\",c\n1,2\n3,4,5\n") == "csv: line 4: has 3 fields, expects 2 as in the first line");
  CHECK(refusal("") == "csv: the file has no lines");
  for (const char* bad : {"1.2.3", "0x10", "1,5x", "--1", "1e999", "1 2"})
    CHECK_MESSAGE(refusal(std::string("a\n") + bad).starts_with("csv: line 2"), bad);
}

TEST_CASE("csv: integers are exact") {
  const auto table = parse_csv("a\n9007199254740993\n-1\n", {.dtype = i64});
  CHECK(table.values.to_vector<int64_t>() == std::vector<int64_t>{9007199254740993, -1});
  CHECK(refusal("a\n1.5\n", {.dtype = i64}) == "csv: line 2, column 1 (a): expects an integer, got \"1.5\"");
  CHECK(refusal("a\n256\n", {.dtype = u8}) == "csv: line 2, column 1 (a): 256 is out of the range of u8");
  CHECK(parse_csv("a\n1\n0\n", {.dtype = boolean}).values.dtype() == boolean);
}

TEST_CASE("csv: from a file") {
  const TemporaryFolder folder;
  const auto path = folder.write("x.csv", "a,b\n1,2\n3,x\n");
  CHECK_THROWS_WITH_AS(
      load_csv(path), ("csv: " + path.string() + ": line 3, column 2 (b): expects a number, got \"x\"").c_str(), Error);
  CHECK(load_csv(path, {.columns = {"a"}}).values.shape() == Dims{2, 1});
  CHECK_THROWS_AS(load_csv(folder / "absent"), Error);
}
