// What kind of character a Unicode code point is, as far as tokenizers ask.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace loom::data {

enum class Character : uint8_t { letter, number, space, other };  // categories L and N; White_Space; the rest

Character kind_of(uint32_t code_point);

struct DecodedCharacter {
  uint32_t code_point;
  size_t length;  // bytes; 0: what stands there is not UTF-8
};
DecodedCharacter character_at(std::string_view text, size_t at);

}  // namespace loom::data
