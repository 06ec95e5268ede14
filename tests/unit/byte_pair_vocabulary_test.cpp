// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <loom/data/byte_pair_vocabulary.h>
#include <loom/data/unicode.h>

#include "temporary_folder.h"

using namespace loom;
using data::BytePairVocabulary;
using data::Character;

namespace {

std::string base64(std::string_view bytes) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t k = i; k < i + 3; ++k) bits = bits << 8 | (k < bytes.size() ? static_cast<uint8_t>(bytes[k]) : 0u);
    for (size_t k = 0; k < 4; ++k) out += i + k > bytes.size() ? '=' : digits[bits >> (18 - 6 * k) & 63u];
  }
  return out;
}

// Each byte by its value, then these.
std::string lines_of(const std::vector<std::string>& merges) {
  std::string out;
  for (int i = 0; i < 256; ++i) out += str(base64(std::string(1, static_cast<char>(i))), " ", i, "\n");
  for (size_t i = 0; i < merges.size(); ++i) out += str(base64(merges[i]), " ", 256 + i, "\n");
  return out;
}

std::vector<std::string> pieces(std::string_view text) {
  std::vector<std::string> out;
  for (size_t at = 0; at < text.size(); at += out.back().size())
    out.emplace_back(text.substr(at, data::gpt2_piece(text, at)));
  return out;
}

using Tokens = std::vector<int64_t>;
using Pieces = std::vector<std::string>;

}  // namespace

TEST_CASE("byte pairs: the tokens of tiktoken with these ranks") {
  const auto vocabulary = BytePairVocabulary::parse(
      lines_of({"he", "th", "the", " the", "in", "ing", " a",      "'s", "ll",  "  ",   "\n\n",
                "é",  "日", "aa",  "12",   " 1", "!!",  "e\u0301", "re", "her", "here", "ther"}));
  CHECK(vocabulary.size() == 256 + 22 + 1);
  const std::vector<std::pair<std::string, Tokens>> golden = {
      {"the there", {258, 259, 274}},
      {"he's they'll   in\n\n\nthe   ", {256, 263, 259, 121, 39, 264, 265, 32, 260, 266, 10, 258, 265, 32}},
      {"aaaaa 1234 !!!", {269, 269, 97, 32, 270, 51, 52, 32, 272, 33}},
      {"né 日本\u00a0\u2003x", {110, 267, 32, 230, 151, 165, 230, 156, 172, 194, 160, 226, 128, 131, 120}},
      {"<|endoftext|>", {60, 124, 101, 110, 100, 111, 102, 116, 101, 120, 116, 124, 62}},
      {"", {}}};
  for (const auto& [text, tokens] : golden) {
    const Tensor encoded = vocabulary.encode(text);
    CHECK(encoded.dtype() == i64);
    CHECK(encoded.to_vector<int64_t>() == tokens);
    CHECK(vocabulary.decode(encoded) == text);
  }
  CHECK(vocabulary.decode(Tokens{256, vocabulary.end_of_text_token(), 0xE6}) == "he<|endoftext|>\xE6");
  CHECK_THROWS_WITH_AS(vocabulary.decode(Tokens{0, 279}),
                       "BytePairVocabulary: token 279 at position 1 is out of range for 279 tokens", Error);
  CHECK_THROWS_AS(vocabulary.decode(Tokens{-1}), Error);
  CHECK_THROWS_WITH_AS(vocabulary.encode("ab\xff"), "BytePairVocabulary: the text is not UTF-8 at byte 2", Error);
}

TEST_CASE("byte pairs: long pieces take no longer than their length") {
  const auto vocabulary = BytePairVocabulary::parse(lines_of({"aa", "aaaa"}));
  const std::string text(1'000'003, 'a');  // a second for n log n, an hour for n^2
  const Tensor tokens = vocabulary.encode(text);
  CHECK(tokens.numel() == 250'002);
  CHECK(vocabulary.decode(tokens) == text);
}

TEST_CASE("byte pairs: GPT-2's pieces") {
  CHECK(pieces("I'm sure they'd've  gone, he'S said:\t \"no!\"") == Pieces{"I", "'m", " sure", " they", "'d", "'ve",
                                                                           " ", " gone", ",", " he", "'", "S", " said",
                                                                           ":", "\t", " \"", "no", "!\""});
  CHECK(pieces("a  \n b \t\tc\n") == Pieces{"a", "  \n", " b", " \t", "\t", "c", "\n"});
  CHECK(pieces("x12y ½Ⅷ٣'") == Pieces{"x", "12", "y", " ½Ⅷ٣", "'"});
  CHECK(pieces(" ") == Pieces{" "});
  CHECK(pieces("été\u00a0\u2003 日本、😀") == Pieces{"été", "\u00a0\u2003", " 日本", "、😀"});
  CHECK(pieces("e\u0301!") == Pieces{"e", "\u0301!"});  // a combining mark is no letter
}

TEST_CASE("unicode: kinds of characters") {
  for (const uint32_t c : {0x41u, 0x7Au, 0xAAu, 0xE9u, 0x3B1u, 0x5D0u, 0x3042u, 0x4E00u, 0x9FFFu, 0xD7A3u, 0x20000u})
    CHECK(data::kind_of(c) == Character::letter);
  for (const uint32_t c : {0x30u, 0x39u, 0xB2u, 0xBDu, 0x660u, 0x2167u, 0x3007u, 0x1D7FFu})
    CHECK(data::kind_of(c) == Character::number);
  for (const uint32_t c : {0x9u, 0xDu, 0x20u, 0x85u, 0xA0u, 0x2003u, 0x2028u, 0x3000u})
    CHECK(data::kind_of(c) == Character::space);
  for (const uint32_t c : {0u, 0x1Fu, 0x21u, 0x40u, 0x5Bu, 0x60u, 0x7Bu, 0xD7u, 0x301u, 0x200Bu, 0x1F600u, 0x10FFFFu})
    CHECK(data::kind_of(c) == Character::other);
}

TEST_CASE("byte pairs: files and what is wrong with them") {
  const TemporaryFolder folder;
  CHECK(BytePairVocabulary(folder.write("good.tiktoken", lines_of({"he"}))).size() == 258);
  CHECK(BytePairVocabulary::parse("\n" + lines_of({}) + "\n\n").size() == 257);
  CHECK_THROWS_AS(BytePairVocabulary(folder / "absent"), Error);
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"!!\n", "line 1: expects a token's bytes in base64, a space and the token's rank"},
      {"QQ==\n", "line 1: expects a token's bytes in base64, a space and the token's rank"},
      {" 3\n", "line 1: expects a token's bytes in base64, a space and the token's rank"},
      {"QR== 3\n", "line 1: expects a token's bytes in base64, a space and the token's rank"},
      {"Q=== 3\n", "line 1: expects a token's bytes in base64, a space and the token's rank"},
      {"QQ== 0\nQg== x\n", "line 2: \"x\" is no rank"},
      {"QQ== -1\n", "line 1: \"-1\" is no rank"},
      {"QQ== 99999999999999999999\n", "line 1: \"99999999999999999999\" is no rank"},
      {"QQ== 0\nQQ== 1\n", "line 2: the token has a rank already"},
      {"QQ== 0\nQg== 2\n", "rank 2 of 2 tokens; expects each from 0 on, without gaps"},
      {"QQ== 0\nQg== 0\n", "rank 0 stands there twice"},
      {"QQ== 0\nQg== 1\n", "no token is the single byte 0; a byte-level vocabulary has all 256"},
      {"", "no token is the single byte 0; a byte-level vocabulary has all 256"}};
  for (const auto& [lines, text] : bad) {
    const auto path = folder.write("bad.tiktoken", lines);
    CHECK_THROWS_WITH_AS(BytePairVocabulary{path}, ("tiktoken: " + path.string() + ": " + text).c_str(), Error);
  }
}
