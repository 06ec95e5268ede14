// SPDX-License-Identifier: Apache-2.0
#include "byte_pair_golden.h"

TEST_CASE("byte pairs: tiktoken's tokens of awkward texts, by a small vocabulary") {
  const loom::data::BytePairVocabulary vocabulary(std::string(LOOM_TEST_DATA) + "/byte_pairs.tiktoken");
  CHECK(vocabulary.size() == 256 + 300 + 1);
  golden::check_tokens(vocabulary, golden::Vocabulary::small);
}
