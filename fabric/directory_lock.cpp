#include <loom/fabric/directory_lock.h>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include <loom/accelerators/error.h>

namespace loom {

namespace {

std::string read_owner(int file) {
  char text[256];
  const ssize_t n = pread(file, text, sizeof(text), 0);
  return n > 0 ? std::string(text, static_cast<size_t>(n)) : "another process";
}

std::string describe_this_process() {
  char host[128] = "?";
  gethostname(host, sizeof(host) - 1);
  return str("process ", static_cast<int64_t>(getpid()), " on ", static_cast<const char*>(host));
}

}  // namespace

DirectoryLock::DirectoryLock(const std::filesystem::path& directory) : directory_(directory) {
  std::error_code status;
  std::filesystem::create_directories(directory, status);
  check(!status, "save: cannot make the directory ", directory.string(), ": ", status.message());
  const std::string path = (directory / ".loom.lock").string();
  // Not through a link: what it points to would be overwritten.
  file_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  check(file_ >= 0, "save: cannot open ", path, ", the checkpoint directory's lock: ", std::strerror(errno));
  if (flock(file_, LOCK_EX | LOCK_NB) != 0) {
    const int reason = errno;
    const std::string owner = read_owner(file_);
    close(file_);
    check(reason == EWOULDBLOCK, "save: cannot lock ", path, ": ", std::strerror(reason));
    check(owner != describe_this_process(), "save: the checkpoint directory ", directory.string(),
          " is being written by another Fabric of this program, which holds it until its launch returns (or, where it ",
          "saves outside of launch, until its end)");
    fail("save: the checkpoint directory ", directory.string(), " is being written by ", owner,
         "; give each program a directory of its own");
  }
  // Who holds it, for the message above; a failure here (a full disk) does not weaken the lock.
  const std::string text = describe_this_process();
  if (ftruncate(file_, 0) == 0) [[maybe_unused]]
    const ssize_t written = pwrite(file_, text.data(), text.size(), 0);
}

DirectoryLock::~DirectoryLock() {
  if (file_ >= 0) close(file_);
}

}  // namespace loom
