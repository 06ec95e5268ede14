// SPDX-License-Identifier: Apache-2.0
// docs/op_dtype_table.md says what every op gives for every dtype; this compares it with what the build does. After a
// change:
//   LOOM_WRITE_DOCS=1 unit_tests --source-file='*op_dtypes*'
#include <algorithm>
#include <map>
#include <sstream>

#include <doctest/doctest.h>

#include "op_sweep/case.h"
#include "written_page.h"

using namespace loom;
using namespace loom::sweep;

namespace {

constexpr DType dtypes[] = {f64, f32, f16, bf16, i64, i32, u8, boolean};

// An op's first case, on inputs of the dtype (without signs: not all dtypes have one). Where an op's inputs are all
// integral, it is these that get the dtype.
std::vector<Tensor> inputs_of(const Case& c, DType dtype) {
  auto inputs = c.draw();
  const auto typed = [](const Input& input) { return input.typed; };
  const bool none_typed = std::none_of(c.inputs.begin(), c.inputs.end(), typed);
  for (size_t i = 0; i < inputs.size(); ++i)
    if (c.inputs[i].typed || (none_typed && inputs[i].dtype() != boolean)) inputs[i] = abs(inputs[i]).to(dtype);
  return inputs;
}

// The result's dtype, or "" and the text that was thrown, with <dtype> for the dtype.
std::pair<std::string, std::string> outcome(const Case& c, DType dtype) {
  try {
    return {to_string(c.f(inputs_of(c, dtype)).dtype()), ""};
  } catch (const Error& error) {
    std::string text = error.what();
    const std::string name = to_string(dtype);
    for (size_t at = 0; (at = text.find(name, at)) != std::string::npos; at += 7)
      text.replace(at, name.size(), "<dtype>");
    return {"", text};
  }
}

std::string table() {
  std::ostringstream rows;
  std::map<std::string, std::string> texts;  // text -> "op (dtypes), op (dtypes)"
  std::map<std::string, const Case*> first;
  for (const Case& c : all_cases()) first.emplace(c.op, &c);
  for (const auto& [op, c] : first) {
    std::map<std::string, std::string> thrown;  // text -> dtypes
    rows << "| `" << op << "` |";
    for (const DType dtype : dtypes) {
      const auto [result, text] = outcome(*c, dtype);
      rows << " " << (result.empty() ? "-" : result) << " |";
      if (!result.empty()) continue;
      std::string& list = thrown[text];
      list += (list.empty() ? "" : ", ") + to_string(dtype);
    }
    rows << "\n";
    for (const auto& [text, list] : thrown)
      texts[text] += str(texts[text].empty() ? "" : ", ", "`", op, "` (", list, ")");
  }
  std::ostringstream page;
  page << "# Ops and dtypes\n\n"
       << "The dtype of each op's result when its arguments have the dtype of the column; `-` where it throws (texts "
          "below).\n"
       << "Indices are always i64, masks and conditions boolean. Measured on the CPU; `unit/op_dtypes` compares this "
          "page\n"
       << "with the build. To write it again after a change:\n\n"
       << "```\nLOOM_WRITE_DOCS=1 build/release/tests/unit_tests --source-file='*op_dtypes*'\n```\n\n| op |";
  for (const DType dtype : dtypes) page << " " << to_string(dtype) << " |";
  page << "\n|---|---|---|---|---|---|---|---|---|\n" << rows.str() << "\n## What is thrown\n\n";
  for (const auto& [text, list] : texts) page << "- \"" << text << "\": " << list << "\n";
  return page.str();
}

}  // namespace

TEST_CASE("docs/op_dtype_table.md says what the build does") { check_page("op_dtype_table.md", table()); }
