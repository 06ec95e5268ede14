// Text as a sequence of characters: the input of character-level language models.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <loom/tensor/tensor.h>

namespace loom::data {

// The whole file, plain or gzipped.
std::string read_text(const std::filesystem::path& path);

// The distinct characters (Unicode code points of UTF-8) of a text, in order of their code; a character's position is
// its token.
class CharVocabulary {
 public:
  explicit CharVocabulary(std::string_view text);

  int64_t size() const { return static_cast<int64_t>(characters_.size()); }
  const std::vector<std::string>& characters() const { return characters_; }

  Tensor encode(std::string_view text) const;  // i64 [characters]; another character is an Error
  std::string decode(const Tensor& tokens) const;
  std::string decode(std::span<const int64_t> tokens) const;

 private:
  std::vector<std::string> characters_;
  std::map<std::string, int64_t, std::less<>> tokens_;
};

}  // namespace loom::data
