// The text that the GPT learns: where it comes from, and as tokens.
#pragma once

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include <loom/data/byte_pair_vocabulary.h>
#include <loom/loom.h>

namespace loom {

// The King James Bible, a verse a line, as Debian's program prints it.
inline std::string read_bible() {
  FILE* const pipe = popen("bible -f Gen1:1-Rev22:21 </dev/null 2>/dev/null", "r");
  check(pipe != nullptr, "cannot start a shell");
  std::string text;
  std::vector<char> part(1 << 16);
  for (size_t got = 0; (got = std::fread(part.data(), 1, part.size(), pipe)) > 0;) text.append(part.data(), got);
  check(pclose(pipe) == 0 && !text.empty(),
        "no text: the program `bible` did not print one; install the Debian package ",
        "bible-kjv (apt-get install bible-kjv) or pass --data FILE");
  return text;
}

inline std::string read_corpus(const std::string& file) {
  if (file.empty()) return read_bible();
  check(std::filesystem::exists(file), "no text: there is no file ", file,
        "; pass another --data FILE, or install the Debian package bible-kjv and leave --data out");
  return data::read_text(file);
}

// FNV-1a of the texts, each with its length.
inline uint64_t hash_of(const std::vector<std::string>& texts) {
  uint64_t hash = 0xCBF29CE484222325;
  const auto add = [&](uint64_t byte) { hash = (hash ^ byte) * 0x100000001B3; };
  for (const std::string& text : texts) {
    for (size_t length = text.size(), i = 0; i < sizeof(length); ++i) add(length >> 8 * i & 0xFF);
    for (const char c : text) add(static_cast<uint8_t>(c));
  }
  return hash;
}

// Characters, or GPT-2's tokens by a .tiktoken file.
class Vocabulary {
 public:
  Vocabulary(const std::string& file, const std::string& text)
      : tokens_(file.empty() ? Either(data::CharVocabulary(text)) : Either(data::BytePairVocabulary(file))) {}

  int64_t size() const {
    return std::visit([](const auto& v) { return v.size(); }, tokens_);
  }
  Tensor encode(const std::string& text) const {
    return std::visit([&](const auto& v) { return v.encode(text); }, tokens_);
  }
  std::string decode(std::span<const int64_t> tokens) const {
    return std::visit([&](const auto& v) { return v.decode(tokens); }, tokens_);
  }
  // What tells these tokens from others: their kind, and the characters, all in a row, where tokens are characters.
  std::string kind() const {
    const auto* pairs = std::get_if<data::BytePairVocabulary>(&tokens_);
    return pairs == nullptr ? "none" : str("a file of ", size(), " tokens with the hash ", hash_of(pairs->tokens()));
  }
  std::string alphabet() const {
    std::string out;
    if (const auto* characters = std::get_if<data::CharVocabulary>(&tokens_))
      for (const std::string& c : characters->characters()) out += c;
    return out;
  }
  // What a text begins after: the end of another, or of a line.
  int64_t start() const {
    if (const auto* pairs = std::get_if<data::BytePairVocabulary>(&tokens_)) return pairs->end_of_text_token();
    const auto& characters = std::get<data::CharVocabulary>(tokens_).characters();
    const auto found = std::find(characters.begin(), characters.end(), "\n");
    return found == characters.end() ? 0 : found - characters.begin();
  }

 private:
  using Either = std::variant<data::CharVocabulary, data::BytePairVocabulary>;
  Either tokens_;
};

inline std::vector<int64_t> tokens_of_prompt(const Vocabulary& vocabulary, const std::string& prompt) {
  try {
    return vocabulary.encode(prompt).to_vector<int64_t>();
  } catch (const Error& error) {
    fail("--prompt: ", error.what());
  }
}

// The first nine tenths train, the rest validates.
struct Corpus {
  Vocabulary vocabulary;
  Tensor train, validation;  // tokens
};

inline Corpus load_corpus(const std::string& file, const std::string& vocabulary_file, int64_t block_size) {
  const std::string text = read_corpus(file);
  Vocabulary vocabulary(vocabulary_file, text);
  const Tensor tokens = vocabulary.encode(text);
  const int64_t count = tokens.numel(), last = count / 10;
  check(last > block_size, "the text has ", count, " tokens, too few for --block-size ", block_size,
        ": a tenth validates, so it takes ", 10 * (block_size + 1), " at least");
  return {std::move(vocabulary), tokens.narrow(0, 0, count - last), tokens.narrow(0, count - last, last)};
}

}  // namespace loom
