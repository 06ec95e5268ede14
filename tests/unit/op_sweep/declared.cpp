// SPDX-License-Identifier: Apache-2.0
#include "declared.h"

#include <filesystem>
#include <fstream>
#include <regex>

namespace loom::sweep {

std::map<std::string, std::string> declared_functions() {
  const std::regex declaration(R"(^(?:inline )?(?:Tensor|std::pair<Tensor, Tensor>|std::vector<Tensor>) (\w+)\()");
  std::map<std::string, std::string> functions;
  for (const auto& entry : std::filesystem::directory_iterator(LOOM_SOURCE "/autograd/ops")) {
    if (entry.path().extension() != ".h") continue;
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);)
      if (std::smatch match; std::regex_search(line, match, declaration))
        functions.emplace(match[1], entry.path().filename().string());
  }
  return functions;
}

}  // namespace loom::sweep
