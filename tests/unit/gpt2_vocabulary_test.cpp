// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <filesystem>

#include "byte_pair_golden.h"

TEST_CASE("byte pairs: tiktoken's tokens of awkward texts, by GPT-2's vocabulary") {
  const char* const path = std::getenv("LOOM_GPT2_VOCABULARY");
  if (path == nullptr) {
    MESSAGE("skipped: LOOM_GPT2_VOCABULARY does not name gpt2.tiktoken, which is in openai-whisper on PyPI");
    return;
  }
  const loom::data::BytePairVocabulary vocabulary{std::filesystem::path(path)};
  CHECK(vocabulary.size() == 50257);
  golden::check_tokens(vocabulary, golden::Vocabulary::gpt2);
}
