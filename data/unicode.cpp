#include <loom/data/unicode.h>

#include <algorithm>

#include <loom/data/unicode_ranges.h>
#include <loom/tensor/utf8.h>

namespace loom::data {

namespace {

template <size_t n>
bool within(const std::array<uint32_t, n>& limits, uint32_t code_point) {
  return (std::ranges::upper_bound(limits, code_point) - limits.begin()) % 2 == 1;
}

bool is_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

}  // namespace

Character kind_of(uint32_t code_point) {
  if (code_point < 0x80) {  // nearly every character of nearly every text
    const uint32_t lower = code_point | 0x20u;
    if (lower >= 'a' && lower <= 'z') return Character::letter;
    if (code_point >= '0' && code_point <= '9') return Character::number;
    return is_space(code_point) ? Character::space : Character::other;
  }
  if (within(letter_limits, code_point)) return Character::letter;
  if (is_space(code_point)) return Character::space;
  return within(number_limits, code_point) ? Character::number : Character::other;
}

DecodedCharacter character_at(std::string_view text, size_t at) {
  const size_t length = utf8_length(text, at);
  if (length == 0) return {0, 0};
  const auto first = static_cast<uint8_t>(text[at]);
  uint32_t code_point = length == 1 ? first : first & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) code_point = code_point << 6 | (static_cast<uint8_t>(text[at + i]) & 0x3Fu);
  return {code_point, length};
}

}  // namespace loom::data
