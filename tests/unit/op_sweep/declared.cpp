// SPDX-License-Identifier: Apache-2.0
#include "declared.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

namespace loom::sweep {

namespace {

const std::string returns = R"(\n(?:inline )?(?:Tensor|std::pair<Tensor, Tensor>|std::vector<Tensor>) )";

std::map<std::string, std::string> headers() {  // name -> text
  std::map<std::string, std::string> texts;
  for (const auto& entry : std::filesystem::directory_iterator(LOOM_SOURCE "/autograd/ops")) {
    if (entry.path().extension() != ".h") continue;
    std::ostringstream text;
    text << std::ifstream(entry.path()).rdbuf();
    texts[entry.path().filename().string()] = text.str();
  }
  return texts;
}

// Calls f with each match of the expression.
template <class F>
void each(const std::string& text, const std::string& expression, const F& f) {
  const std::regex regex(expression);
  for (auto at = std::sregex_iterator(text.begin(), text.end(), regex); at != std::sregex_iterator(); ++at) f(*at);
}

size_t count(const std::string& text, const std::string& what) {
  size_t n = 0;
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += what.size()) ++n;
  return n;
}

}  // namespace

std::map<std::string, std::string> declared_functions() {
  std::map<std::string, std::string> functions;
  for (const auto& [name, text] : headers())
    each(text, returns + R"((\w+)\()", [&, file = name](const std::smatch& m) { functions.emplace(m[1], file); });
  return functions;
}

std::map<std::string, size_t> declared_operands() {
  std::map<std::string, size_t> operands;
  for (const auto& [name, text] : headers()) {
    std::map<std::string, size_t> of_struct;
    each(text, R"(\nstruct (\w+) \{\n((?: [^\n]*\n)*)\};)",
         [&](const std::smatch& m) { of_struct[m[1]] = count(m[2], "  Tensor "); });
    each(text, returns + R"((\w+)\(([^;]*)\)(?:;| \{))", [&](const std::smatch& m) {
      const std::string parameters = m[2];
      size_t n = count(parameters, "const Tensor&") + 2 * count(parameters, "std::vector<Tensor>&") +
                 count(parameters, "std::vector<Index>&");
      for (const auto& [options, tensors] : of_struct) n += tensors * count(parameters, "const " + options + "&");
      operands[m[1]] = std::max(operands[m[1]], n);
    });
  }
  return operands;
}

}  // namespace loom::sweep
