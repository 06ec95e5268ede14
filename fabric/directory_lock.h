// One program at a time writes a checkpoint directory: a Fabric holds it from its first save there to the end of
// launch, or to its own end where it saves outside of launch.
#pragma once

#include <filesystem>

namespace loom {

// Held from construction to destruction; also given up when the process dies, however.
class DirectoryLock {
 public:
  // Makes the directory where it is missing. Throws Error when another process or another Fabric holds it, naming it.
  explicit DirectoryLock(const std::filesystem::path& directory);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;
  const std::filesystem::path& directory() const { return directory_; }

 private:
  std::filesystem::path directory_;
  int file_ = -1;
};

}  // namespace loom
