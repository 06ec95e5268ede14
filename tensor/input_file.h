// A file that is opened once and read at any position. pread, not mmap: a file that shrinks meanwhile is an Error
// instead of a SIGBUS, and network file systems serve it well.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include <loom/tensor/named_file.h>

namespace loom {

class InputFile : public NamedFile {
 public:
  // `format` starts the text of every error: "safetensors: FILE: ...".
  InputFile(std::filesystem::path file, std::string format);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  uint64_t size() const { return size_; }  // when it was opened
  // All of the bytes, or an Error. Safe from several threads at once.
  void read(uint64_t offset, void* into, uint64_t bytes) const;

 private:
  uint64_t size_ = 0;
  int descriptor_ = -1;
};

}  // namespace loom
