// What a plugin and the library must agree on: a number that changes with the interface they share.
#pragma once

#include <cstdint>
#include <string_view>

#include <loom/accelerators/accelerator.h>

namespace loom {

// FNV-1a of the interface's text, which the build gives (LOOM_INTERFACE: a digest of the headers in accelerators/), and
// of sizes that a compiler may choose.
constexpr uint64_t interface_digest(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  for (const size_t size : {sizeof(View), sizeof(UpdatePiece), sizeof(Attention), sizeof(Gemm), sizeof(std::string)})
    hash = (hash ^ size) * 0x100000001b3u;
  return hash;
}

}  // namespace loom
