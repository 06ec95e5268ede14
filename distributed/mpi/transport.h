// Collectives over one MPI communicator, blocking, in the calling thread.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include <loom/distributed/collective.h>
#include <loom/distributed/mpi/call.h>

namespace loom::mpi {

class Transport {
 public:
  // A message has at most chunk_elements elements.
  Transport(MPI_Comm comm, int64_t chunk_elements);

  void run(const Collective& c);

 private:
  using Bytes = std::byte*;

  void all_reduce(const Collective& c);
  void all_reduce_small(const Collective& c);
  void reduce_scatter(const Collective& c);
  void all_gather(const Collective& c);
  void broadcast(const Collective& c);
  void gather(const Collective& c);
  void scatter(const Collective& c);
  void all_to_all(const Collective& c);

  // Started here, finished by complete(). Messages from one rank to another arrive in the order they were sent.
  void send(const std::byte* data, int64_t count, size_t item, int to);
  void recv(Bytes data, int64_t count, size_t item, int from);
  void complete();

  // A run of elements of this rank's data.
  struct Slice {
    Bytes data = nullptr;
    int64_t count = 0;
  };
  // Hands slice_of(r) to each rank r, and reduces what all ranks handed to this one into out.
  void exchange_and_reduce(const Collective& c, const std::function<Slice(int rank)>& slice_of, Bytes out);

  int peer(int step) const { return (rank_ + step) % size_; }  // ranks start with different peers
  int64_t slice_elements(size_t item) const;
  Bytes scratch(size_t bytes);

  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
  int64_t chunk_;
  std::vector<MPI_Request> requests_;
  std::unique_ptr<std::byte[]> scratch_;
  size_t scratch_bytes_ = 0;
};

}  // namespace loom::mpi
