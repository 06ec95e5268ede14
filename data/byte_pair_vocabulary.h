// GPT-2's tokens (Radford et al. 2019): byte-pair encoding (Sennrich et al. 2016) over bytes, so that every text has
// one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <loom/tensor/tensor.h>

namespace loom::data {

// The vocabulary of a .tiktoken file: a line "base64-of-the-bytes rank" for each token, whose rank is its number and
// says how early its parts are joined. The same tokens as tiktoken's Encoding of these ranks with GPT-2's pattern.
class BytePairVocabulary {
 public:
  static constexpr std::string_view end_of_text = "<|endoftext|>";  // what stands between documents

  // Plain or gzipped. Ranks are 0 to n - 1, each once, and every single byte has one; else Error with the line.
  explicit BytePairVocabulary(const std::filesystem::path& path);
  static BytePairVocabulary parse(std::string_view lines, const std::string& context = "tiktoken: ");

  int64_t size() const { return static_cast<int64_t>(tokens_.size()); }  // with the end of text
  int64_t end_of_text_token() const { return size() - 1; }               // the number after the last rank
  const std::vector<std::string>& tokens() const { return tokens_; }     // their bytes, by number

  // i64 [tokens]. Text that reads "<|endoftext|>" is text; a text that is not UTF-8 is an Error.
  Tensor encode(std::string_view text) const;
  std::string decode(const Tensor& tokens) const;
  std::string decode(std::span<const int64_t> tokens) const;  // not UTF-8 where a character's tokens are incomplete

 private:
  BytePairVocabulary() = default;
  void read(std::string_view lines, const std::string& context);
  void encode_piece(std::string_view piece, std::vector<int64_t>& out) const;
  int64_t rank(std::string_view bytes) const;  // none: -1

  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::vector<std::string> tokens_;
  std::unordered_map<std::string, int64_t, Hash, std::equal_to<>> ranks_;
};

// Bytes of the piece that starts at text[at], a character of a UTF-8 text: tokens do not cross pieces. GPT-2's pattern:
// '(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
size_t gpt2_piece(std::string_view text, size_t at);

}  // namespace loom::data
