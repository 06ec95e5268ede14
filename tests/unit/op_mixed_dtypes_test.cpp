// SPDX-License-Identifier: Apache-2.0
// docs/op_mixed_dtypes.md says what every op with two or more tensors does when one of them has another dtype than the
// rest, and what PyTorch does; this compares it with the build, and results with those of f64. After a change:
//   LOOM_WRITE_DOCS=1 unit_tests --source-file='*op_mixed_dtypes*'
#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <sstream>

#include <doctest/doctest.h>

#include <loom/autograd/engine.h>

#include "golden.h"
#include "kernel_test.h"
#include "op_sweep/checks.h"
#include "op_sweep/declared.h"
#include "written_page.h"

using namespace loom;
using namespace loom::sweep;

namespace {

constexpr DType dtypes[] = {f64, f32, f16, bf16, i64, i32, u8, boolean};  // as tests/golden/dtype_cases.py counts them

// What one operand is given, and the others. Indices and masks, as others, stay what they are.
struct Column {
  DType others, given;
};

std::vector<Column> all_columns() {
  std::vector<Column> columns;
  for (const DType others : {f32, bf16})
    for (const DType given : dtypes) columns.push_back({others, given});
  return columns;
}
const std::vector<Column> columns = all_columns();

// Of each op with several operands a case for each kind of them; those with fewer of the same kinds say nothing new.
std::vector<const Case*> mixed_cases() {
  std::map<std::string, std::map<std::string, const Case*>> of_op;  // op -> kinds -> case
  for (const Case& c : all_cases()) {
    if (c.what == "padding_idx") continue;  // joins embedding's weight from parts before the op
    std::string kinds;
    const auto drawn = c.draw();
    for (const Tensor& x : drawn) kinds += to_string(x.dtype()) + ' ';
    const bool empty = std::ranges::any_of(drawn, [](const Tensor& x) { return x.numel() == 0; });
    if (drawn.size() > 1 && !empty) of_op[c.op].emplace(kinds, &c);
  }
  std::vector<const Case*> out;
  for (const auto& [op, cases] : of_op)
    for (auto at = cases.begin(); at != cases.end(); ++at) {
      const auto next = std::next(at);
      if (next == cases.end() || !next->first.starts_with(at->first)) out.push_back(at->second);
    }
  return out;
}

std::vector<Tensor> inputs_of(const Case& c, size_t operand, Column column) {
  auto inputs = c.draw(column.others);
  Tensor& x = inputs[operand];
  const bool to_unsigned = is_floating(x.dtype()) && !is_floating(column.given);
  x = (to_unsigned ? abs(x) : x).to(column.given);
  return inputs;
}

struct Outcome {
  Tensor y;  // undefined where it threw
  std::string text;
};

Outcome outcome(const Case& c, const std::vector<Tensor>& inputs) {
  try {
    return {c.f(inputs), {}};
  } catch (const Error& error) {
    return {{}, error.what()};
  }
}

std::string with_placeholder(const std::string& text, const std::string& dtype) {
  return std::regex_replace(text, std::regex("\\b" + dtype + "\\b"), "<dtype>");
}

const char* const none = "-";  // no result

// What PyTorch gives; nothing where it has no such function.
std::optional<std::string> of_pytorch(const Case& c, size_t operand, size_t column) {
  const golden::Tensors& stored = golden::file("dtypes");
  const auto found = stored.find("mixed." + c.name());
  if (found == stored.end()) return {};
  REQUIRE(found->second.shape() == Dims{static_cast<int64_t>(c.inputs.size()), static_cast<int64_t>(columns.size())});
  const int number = found->second.to_vector<int>()[operand * columns.size() + column];
  return number == 255 ? none : to_string(dtypes[number]);
}

// A line of the table for each operand, and the texts: without the op, which stands in the list -> op, operand ->
// dtypes.
using Texts = std::map<std::string, std::map<std::string, std::vector<std::string>>>;

std::string lines_of(const Case& c, Texts& texts) {
  std::ostringstream lines;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    lines << i + 1 << " |";
    for (size_t k = 0; k < columns.size(); ++k) {
      const auto [y, text] = outcome(c, inputs_of(c, i, columns[k]));
      const std::string ours = y.defined() ? to_string(y.dtype()) : none, theirs = of_pytorch(c, i, k).value_or(ours);
      lines << ' ' << ours << (ours == theirs ? "" : " (" + theirs + ")") << " |";
      if (y.defined()) continue;
      const std::string given = to_string(columns[k].given);
      CHECK_MESSAGE(text.starts_with(c.op + ": "), c.name(), ", operand ", i + 1, " of ", given, ": ", text);
      auto& list = texts[with_placeholder(text.substr(c.op.size() + 2), given)][str('`', c.name(), "` ", i + 1)];
      if (std::ranges::find(list, given) == list.end()) list.push_back(given);
    }
    lines << '\n';
  }
  return lines.str();
}

std::string page() {
  Texts texts;
  std::map<std::string, std::string> alike;  // lines -> names
  for (const Case* const c : mixed_cases()) {
    std::string& names = alike[lines_of(*c, texts)];
    names += str(names.empty() ? "" : ", ", '`', c->name(), '`');
  }
  std::map<std::string, std::string> tables;  // names -> lines
  for (const auto& [lines, names] : alike) tables[names] = lines;
  std::ostringstream out;
  out << "# Operands of different dtypes\n\n"
         "What ops give when one operand (counted from 1) has the dtype of the column and the others are f32, or bf16; "
         "`-` where\nthey throw (texts below). Indices and masks among the others are i64 and boolean. In brackets: "
         "PyTorch's dtype where it\nis another, `-` where it refuses. Ops with several forms have a line for each "
         "(named as in the op sweep). Measured on the\nCPU; `unit/op_mixed_dtypes` compares this page with the build. "
         "To write it again after a change:\n\n"
         "```\nLOOM_WRITE_DOCS=1 build/release/tests/unit_tests --source-file='*op_mixed_dtypes*'\n```\n\n| op | |";
  for (const Column& c : columns) out << ' ' << to_string(c.others) << ", " << to_string(c.given) << " |";
  out << "\n|---|---|" << [] {
    std::string rule;
    for (size_t k = 0; k < columns.size(); ++k) rule += "---|";
    return rule;
  }() << '\n';
  for (const auto& [names, lines] : tables) {
    std::istringstream each(lines);
    for (std::string line; std::getline(each, line);) out << "| " << names << " | " << line << '\n';
  }
  out << "\n## What is thrown\n\n";
  for (const auto& [text, places] : texts) {
    out << "- \"<op>: " << text << "\":";
    const char* comma = " ";
    for (const auto& [place, given] : places) {
      out << comma << place << " (";
      for (size_t i = 0; i < given.size(); ++i) out << (i == 0 ? "" : ", ") << given[i];
      out << ')';
      comma = ", ";
    }
    out << '\n';
  }
  return out.str();
}

// Roundings of the coarsest floating dtype among them.
double epsilon_of(const std::vector<Tensor>& inputs, const Tensor& y) {
  double most = kernel_test::epsilon(f64);
  for (const Tensor& x : inputs)
    if (is_floating(x.dtype())) most = std::max(most, kernel_test::epsilon(x.dtype()));
  return is_floating(y.dtype()) ? std::max(most, kernel_test::epsilon(y.dtype())) : most;
}

// The result against that of the same values in f64, and that gradients have their inputs' dtypes.
std::string check_values(const Case& c, std::vector<Tensor> inputs) {
  std::vector<Tensor> exact, wanted;
  for (size_t i = 0; i < inputs.size(); ++i) {
    exact.push_back(c.inputs[i].typed ? inputs[i].to(f64) : inputs[i]);
    if (c.gradient && c.inputs[i].differentiate && is_floating(inputs[i].dtype()))
      wanted.push_back(inputs[i].requires_grad_());
  }
  const Tensor y = outcome(c, inputs).y;
  if (!y.defined()) return {};
  const Tensor reference = c.f(exact);
  if (is_floating(y.dtype()) != is_floating(reference.dtype())) return {};  // filled, or written to, integers
  const double off = distance(y.detach().to(f64), reference.to(f64));
  const double tolerance = epsilon_of(inputs, y) * std::sqrt(c.length) * c.factor;
  std::string wrong = off <= tolerance ? "" : str("is off by ", off, ", tolerance ", tolerance, "; ");
  if (wanted.empty() || !y.requires_grad()) return wrong;
  y.sum().backward();
  for (const Tensor& x : wanted)
    if (!x.grad().defined() || x.grad().dtype() != x.dtype()) wrong += str("no gradient of ", x.dtype(), "; ");
  return wrong;
}

}  // namespace

TEST_CASE("docs/op_mixed_dtypes.md says what the build does") { check_page("op_mixed_dtypes.md", page()); }

TEST_CASE("operands of different dtypes: results are right, and gradients have the operands' dtypes") {
  for (const Case* const c : mixed_cases())
    for (size_t i = 0; i < c->inputs.size(); ++i)
      for (const Column column : columns) {
        const std::string wrong = check_values(*c, inputs_of(*c, i, column));
        CHECK_MESSAGE(wrong.empty(), c->name(), ", operand ", i + 1, " of ", to_string(column.given), ", others of ",
                      to_string(column.others), ": ", wrong);
      }
}

TEST_CASE("where PyTorch gives a dtype, so does Loom, or it throws") {
  // Of these PyTorch's result has the dtype of the operand that it happens to compute in; Loom's is the promoted one.
  const std::set<std::string> promoted = {"huber_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"};
  size_t compared = 0;
  for (const Case* const c : mixed_cases())
    for (size_t i = 0; i < c->inputs.size(); ++i)
      for (size_t k = 0; k < columns.size(); ++k) {
        const auto inputs = inputs_of(*c, i, columns[k]);
        const Tensor y = outcome(*c, inputs).y;
        const auto theirs = of_pytorch(*c, i, k);
        if (!y.defined() || !theirs || *theirs == none) continue;
        ++compared;
        const DType other = columns[k].others;
        const std::string want = promoted.contains(c->op) ? to_string(promote(other, columns[k].given)) : *theirs;
        CHECK_MESSAGE(to_string(y.dtype()) == want, c->name(), ", operand ", i + 1, " of ", to_string(columns[k].given),
                      ", others of ", to_string(other));
      }
  CHECK(compared > 1000);
}

TEST_CASE("every function with several tensors is in the sweep of mixed dtypes, with all of them") {
  std::map<std::string, size_t> most;
  for (const Case* const c : mixed_cases()) most[c->op] = std::max(most[c->op], c->inputs.size());
  const auto declared = declared_operands();
  CHECK(declared.at("batch_norm") == 5);
  CHECK(declared.at("scaled_dot_product_attention") == 4);
  for (const auto& [function, operands] : declared)
    if (operands > 1) CHECK_MESSAGE(most[function] >= operands, function, " takes ", operands, " tensors");
}
