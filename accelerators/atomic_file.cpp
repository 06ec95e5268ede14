#include <loom/accelerators/atomic_file.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

#include <loom/accelerators/error.h>

namespace loom {

namespace {

// Unlike any other's: ranks may be threads of one process, or processes that write to one directory.
std::filesystem::path temporary_name(const std::filesystem::path& path) {
  static std::atomic<uint64_t> count{0};
  std::filesystem::path out = path;
  out += str(".", ::getpid(), ".", count++, ".tmp");
  return out;
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path, std::string format)
    : path_(std::move(path)), temporary_(temporary_name(path_)), format_(std::move(format)) {
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail_errno("create");
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::write(descriptor_, from, bytes);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail_errno("write");
    from += done;
    bytes -= static_cast<size_t>(done);
  }
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) fail_errno("write");
  if (::close(std::exchange(descriptor_, -1)) != 0) fail_errno("write");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_errno("replace");
  temporary_.clear();
  sync_directory();
}

// The rename itself is durable only when the directory is. Some file systems cannot sync one (EINVAL); nothing is lost.
void AtomicFile::sync_directory() const {
  const auto parent = path_.parent_path();
  const int directory = ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) fail_errno("sync the directory of");
  const int status = ::fsync(directory);
  const int error = errno;
  ::close(directory);
  errno = error;
  if (status != 0 && error != EINVAL) fail_errno("sync the directory of");
}

void AtomicFile::fail_errno(const char* action) const {
  const char* reason = std::strerror(errno);
  fail(format_, ": ", path_.string(), ": cannot ", action, " the file: ", reason);
}

void write_file_atomically(const std::filesystem::path& path, std::string_view text, const std::string& format) {
  AtomicFile file(path, format);
  file.write(text);
  file.commit();
}

}  // namespace loom
