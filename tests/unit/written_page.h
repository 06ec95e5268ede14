// SPDX-License-Identifier: Apache-2.0
// Pages of docs/ that tests write.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include <doctest/doctest.h>

// Checks that docs/NAME is `current`, line by line; writes it first where LOOM_WRITE_DOCS is set.
inline void check_page(const std::string& name, const std::string& current) {
  const auto path = std::filesystem::path(LOOM_SOURCE "/docs") / name;
  if (std::getenv("LOOM_WRITE_DOCS") != nullptr) std::ofstream(path) << current;
  std::ifstream file(path);
  std::istringstream expected(current);
  REQUIRE_MESSAGE(file.good(), "there is no ", path.string());
  for (std::string is, ought; std::getline(expected, ought);) {
    std::getline(file, is);
    CHECK(is == ought);
  }
  CHECK_MESSAGE(file.peek() == EOF, "the page goes on");
}
