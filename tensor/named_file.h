// What knows its file's name, for the text of errors: "safetensors: FILE: ...".
#pragma once

#include <filesystem>
#include <string>
#include <utility>

#include <loom/accelerators/error.h>

namespace loom {

class NamedFile {
 public:
  NamedFile(std::filesystem::path path, std::string format) : path_(std::move(path)), format_(std::move(format)) {}

  const std::filesystem::path& path() const { return path_; }
  std::string context() const { return format_ + ": " + path_.string() + ": "; }

  template <class... Args>
  void check(bool condition, const Args&... args) const {
    if (!condition) [[unlikely]]
      loom::fail(context(), args...);
  }

 private:
  std::filesystem::path path_;
  std::string format_;
};

}  // namespace loom
