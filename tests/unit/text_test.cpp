// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <loom/data/readers/text.h>
#include <loom/tensor/utf8.h>

#include "temporary_folder.h"

using namespace loom;
using data::CharVocabulary;

TEST_CASE("text: characters to tokens and back") {
  const std::string text = "na\u00efve \u20ac\U0001F600\n";
  const CharVocabulary vocabulary(text);
  CHECK(vocabulary.size() == 9);
  CHECK(vocabulary.characters()[0] == "\n");
  CHECK(vocabulary.characters()[8] == "\U0001F600");  // in order of their code points
  const Tensor tokens = vocabulary.encode(text);
  CHECK(tokens.dtype() == i64);
  CHECK(tokens.shape() == Dims{9});
  CHECK(vocabulary.decode(tokens) == text);
  CHECK(vocabulary.encode("").shape() == Dims{0});
  CHECK_THROWS_WITH_AS(vocabulary.encode("nax"),
                       "CharVocabulary: the character \"x\" at byte 2 is not among the 9 known", Error);
  CHECK_THROWS_AS(vocabulary.encode("\u00e9"), Error);
  CHECK_THROWS_AS(vocabulary.decode(std::vector<int64_t>{9}), Error);
  CHECK_THROWS_AS(vocabulary.decode(std::vector<int64_t>{-1}), Error);
  CHECK_THROWS_WITH_AS(CharVocabulary("ab\xff"), "CharVocabulary: the text is not UTF-8 at byte 2", Error);
}

TEST_CASE("text: files") {
  const TemporaryFolder folder;
  const std::string long_text(3'000'000, 'x');
  CHECK(data::read_text(folder.write("x", long_text)) == long_text);
  CHECK(data::read_text(folder.write("y", "")).empty());
  CHECK_THROWS_AS(data::read_text(folder / "absent"), Error);
}

TEST_CASE("utf8: well-formed sequences only") {
  for (const char* good : {"", "a", "\xc2\x80", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"})
    CHECK(utf8_error(good) == std::string_view::npos);
  for (const char* bad : {"\x80", "\xc1\x80", "\xc2", "\xc2x", "\xe0\x9f\x80", "\xed\xa0\x80", "\xf0\x8f\x80\x80",
                          "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xe2\x82"})
    CHECK(utf8_error(bad) == 0);
}
