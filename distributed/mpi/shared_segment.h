// Memory that all ranks of one host have mapped: a part for each rank.
//
// It is an anonymous file that the ranks map through /proc, not an MPI window: a window is freed by all ranks together,
// while gradients die on each rank at a moment of their own; and it has no name that a killed rank could leave behind.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include <loom/distributed/mpi/call.h>

namespace loom::mpi {

class SharedSegment {
 public:
  // Collective over ranks of one host. Null, on all of them, where the system does not allow it to one. Zeros.
  static std::shared_ptr<SharedSegment> make(MPI_Comm comm, size_t bytes_each);
  ~SharedSegment();
  SharedSegment(const SharedSegment&) = delete;
  SharedSegment& operator=(const SharedSegment&) = delete;

  std::byte* part(int rank) const { return parts_ + stride_ * static_cast<size_t>(rank); }
  size_t bytes() const { return stride_; }  // of a part: what was asked for, in whole pages

  // How many ranks still use their part. From nought on nobody does.
  void drop() const { header().users.fetch_sub(1, std::memory_order_release); }
  bool dropped_by_all() const { return header().users.load(std::memory_order_acquire) == 0; }

 private:
  struct Header {
    uint64_t mark;
    std::atomic<int> users;
  };
  SharedSegment(std::byte* mapped, size_t length, size_t stride);
  Header& header() const { return *reinterpret_cast<Header*>(mapped_); }
  static std::byte* map(int file, size_t length);

  std::byte* mapped_;
  size_t length_, stride_;
  std::byte* parts_;
};

}  // namespace loom::mpi
