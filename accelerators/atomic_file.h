// Writes a file so that a reader, or the machine after a crash, finds the old contents or the new ones, never a part:
// a temporary in the same directory, fsync, rename, fsync of the directory.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace loom {

class AtomicFile {
 public:
  // `format` starts the text of every error: "safetensors: FILE: cannot write the file: No space left on device".
  explicit AtomicFile(std::filesystem::path path, std::string format = "file");
  // Without commit() the temporary is removed and the old file stays as it was.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  // Puts the new contents in place of the old ones, durably.
  void commit();

 private:
  void sync_directory() const;
  [[noreturn]] void fail_errno(const char* action) const;

  std::filesystem::path path_, temporary_;
  std::string format_;
  int descriptor_ = -1;
};

// The whole of a small file at once.
void write_file_atomically(const std::filesystem::path& path, std::string_view text,
                           const std::string& format = "file");

}  // namespace loom
