// A recording as a file in Chrome's Trace Event Format: a process for each rank, a track for each thread, stream and
// kind of collective.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace loom::profile {

class Recording;

// Whole or not at all; Error where the file cannot be written. The recording has been stopped.
void write_chrome_trace(const std::filesystem::path& path, Recording& recording);

// A JSON string with its quotes; what is not UTF-8 becomes U+FFFD.
std::string json_string(std::string_view text);

}  // namespace loom::profile
