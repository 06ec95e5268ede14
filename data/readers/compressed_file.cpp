#include <loom/data/readers/compressed_file.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include <zlib.h>

namespace loom::data {

struct CompressedFile::Stream {
  explicit Stream(gzFile f) : file(f) {}
  ~Stream() { gzclose(file); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  gzFile file;
};

CompressedFile::CompressedFile(std::filesystem::path name, std::string format)
    : NamedFile(std::move(name), std::move(format)) {
  std::error_code error;
  check(!std::filesystem::is_directory(path(), error), "is a directory");
  errno = 0;
  const gzFile file = gzopen(path().c_str(), "rb");
  check(file != nullptr, "cannot open: ", errno != 0 ? std::strerror(errno) : "out of memory");
  stream_ = std::make_unique<Stream>(file);
  gzbuffer(file, 1 << 17);
  const uint64_t size = std::filesystem::file_size(path(), error);
  if (error) return;
  most_bytes_ = gzdirect(file) != 0 ? size : size * 1032;  // deflate's best: 258 bytes from 2 bits
}

CompressedFile::~CompressedFile() = default;

uint64_t CompressedFile::read(void* into, uint64_t bytes) {
  auto* out = static_cast<char*>(into);
  uint64_t done = 0;
  while (done < bytes) {
    const auto part = static_cast<unsigned>(std::min<uint64_t>(bytes - done, 1u << 30));
    const int got = gzread(stream_->file, out + done, part);
    int status = Z_OK;
    const char* text = gzerror(stream_->file, &status);
    check(status != Z_BUF_ERROR, "the gzip file is truncated");  // only reported after its last bytes
    check(got >= 0 && (status == Z_OK || status == Z_STREAM_END),
          "cannot read: ", status == Z_ERRNO ? std::strerror(errno) : text);
    if (got == 0) break;
    done += static_cast<uint64_t>(got);
  }
  return done;
}

std::string CompressedFile::read_all() {
  std::string out;
  constexpr size_t step = 1 << 20;
  for (uint64_t got = step; got == step;) {
    const size_t size = out.size();
    out.resize(size + step);
    got = read(out.data() + size, step);
    out.resize(size + got);
  }
  return out;
}

}  // namespace loom::data
