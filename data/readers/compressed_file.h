// A file read from its start to its end, inflated on the way when it is a gzip file (told by its content, not its
// name).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include <loom/tensor/named_file.h>

namespace loom::data {

class CompressedFile : public NamedFile {
 public:
  // `format` starts the text of every error: "idx: FILE: ...".
  CompressedFile(std::filesystem::path name, std::string format);
  ~CompressedFile();
  CompressedFile(const CompressedFile&) = delete;
  CompressedFile& operator=(const CompressedFile&) = delete;

  // Up to `bytes` bytes; fewer only at the end of the file. A damaged or truncated gzip file is an Error.
  uint64_t read(void* into, uint64_t bytes);
  std::string read_all();
  // The contents cannot have more bytes than this: whoever sizes memory by a header can ask first.
  uint64_t most_bytes() const { return most_bytes_; }

 private:
  struct Stream;
  uint64_t most_bytes_ = 0;
  std::unique_ptr<Stream> stream_;
};

}  // namespace loom::data
