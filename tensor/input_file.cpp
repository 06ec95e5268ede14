#include <loom/tensor/input_file.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace loom {

InputFile::InputFile(std::filesystem::path file, std::string format) : NamedFile(std::move(file), std::move(format)) {
  descriptor_ = ::open(path().c_str(), O_RDONLY | O_CLOEXEC);
  check(descriptor_ >= 0, "cannot open: ", std::strerror(errno));
  struct stat status {};
  const bool regular = ::fstat(descriptor_, &status) == 0 && S_ISREG(status.st_mode);
  if (!regular) {
    ::close(descriptor_);
    loom::fail(context(), "not a regular file");
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

InputFile::~InputFile() { ::close(descriptor_); }

void InputFile::read(uint64_t offset, void* into, uint64_t bytes) const {
  auto* out = static_cast<char*>(into);
  while (bytes > 0) {
    const ssize_t got = ::pread(descriptor_, out, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    check(got >= 0, "cannot read: ", std::strerror(errno));
    check(got > 0, "ends at byte ", offset, "; ", bytes, " more bytes expected (the file was truncated)");
    out += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<uint64_t>(got);
  }
}

}  // namespace loom
