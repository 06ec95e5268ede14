// SPDX-License-Identifier: Apache-2.0
// What tiktoken makes of awkward texts (tests/golden/byte_pairs.py).
#pragma once

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <loom/data/byte_pair_vocabulary.h>

namespace golden {

inline std::string from_hexadecimal(const std::string& digits) {
  std::string out;
  for (size_t i = 0; i < digits.size(); i += 2) out += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
  return out;
}

enum class Vocabulary : uint8_t { small, gpt2 };  // in the order of the file's columns

// Every text's tokens are tiktoken's, and its bytes come back.
inline void check_tokens(const loom::data::BytePairVocabulary& vocabulary, Vocabulary which) {
  std::ifstream file(std::string(LOOM_TEST_DATA) + "/byte_pairs.txt");
  int64_t texts = 0;
  for (std::string line; std::getline(file, line); ++texts) {
    std::istringstream columns(line);
    std::string digits, tokens[2];
    std::getline(columns, digits, '\t');
    for (std::string& column : tokens) std::getline(columns, column, '\t');
    const std::string text = from_hexadecimal(digits);
    const loom::Tensor encoded = vocabulary.encode(text);
    std::string found;
    for (const int64_t token : encoded.to_vector<int64_t>()) found += std::to_string(token) + " ";
    CHECK_MESSAGE(found == tokens[static_cast<size_t>(which)], "line " << texts + 1 << ": " << text);
    CHECK(vocabulary.decode(encoded) == text);
  }
  CHECK(texts > 200);
}

}  // namespace golden
