#include <loom/data/readers/text.h>

#include <array>
#include <set>

#include <loom/data/readers/compressed_file.h>
#include <loom/tensor/create.h>
#include <loom/tensor/utf8.h>

namespace loom::data {

namespace {

// Calls f(character, position) for each character.
template <class F>
void for_each_character(std::string_view text, const F& f) {
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text, at);
    check(length > 0, "CharVocabulary: the text is not UTF-8 at byte ", at);
    f(text.substr(at, length), at);
    at += length;
  }
}

}  // namespace

std::string read_text(const std::filesystem::path& path) { return CompressedFile(path, "text").read_all(); }

CharVocabulary::CharVocabulary(std::string_view text) {
  std::set<std::string, std::less<>> seen;  // UTF-8 sorts like the code points
  for_each_character(text, [&](std::string_view c, size_t) {
    if (!seen.contains(c)) seen.emplace(c);
  });
  characters_.assign(seen.begin(), seen.end());
  for (size_t i = 0; i < characters_.size(); ++i) tokens_[characters_[i]] = static_cast<int64_t>(i);
}

Tensor CharVocabulary::encode(std::string_view text) const {
  std::array<int64_t, 128> ascii{};  // nearly every character of nearly every text
  ascii.fill(-1);
  for (const auto& [c, token] : tokens_)
    if (c.size() == 1) ascii[static_cast<uint8_t>(c[0])] = token;
  std::vector<int64_t> out;
  out.reserve(text.size());
  for_each_character(text, [&](std::string_view c, size_t at) {
    int64_t token = -1;
    if (c.size() == 1)
      token = ascii[static_cast<uint8_t>(c[0])];
    else if (const auto found = tokens_.find(c); found != tokens_.end())
      token = found->second;
    check(token >= 0, "CharVocabulary: the character \"", c, "\" at byte ", at, " is not among the ", size(), " known");
    out.push_back(token);
  });
  return from_vector(out, Dims{static_cast<int64_t>(out.size())}, {DType::i64, Device::cpu});
}

std::string CharVocabulary::decode(const Tensor& tokens) const { return decode(tokens.to_vector<int64_t>()); }

std::string CharVocabulary::decode(std::span<const int64_t> tokens) const {
  std::string out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    check(tokens[i] >= 0 && tokens[i] < size(), "CharVocabulary: token ", tokens[i], " at position ", i,
          " is out of range for ", size(), " characters");
    out += characters_[static_cast<size_t>(tokens[i])];
  }
  return out;
}

}  // namespace loom::data
