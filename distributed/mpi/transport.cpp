#include <algorithm>
#include <climits>
#include <cstring>

#include <loom/distributed/mpi/transport.h>
#include <loom/distributed/reduction.h>

namespace loom::mpi {
namespace {

constexpr size_t small_bytes = 16 << 10;   // up to this much in all, everybody gets everything
constexpr size_t scratch_limit = 1 << 20;  // received at a time: what fits into the second-level cache

std::byte* start(const View& v) { return v.as<std::byte>(); }

void copy_bytes(std::byte* to, const std::byte* from, size_t bytes) {
  if (bytes > 0 && to != from) std::memmove(to, from, bytes);
}

}  // namespace

Transport::Transport(MPI_Comm comm, int64_t chunk_elements)
    : comm_(comm), chunk_(std::clamp<int64_t>(chunk_elements, 1, INT_MAX)) {
  check_status(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
  check_status(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
}

void Transport::run(const Collective& c) {
  switch (c.kind) {
    case Collective::all_reduce:
      return all_reduce(c);
    case Collective::all_gather:
      return all_gather(c);
    case Collective::reduce_scatter:
      return reduce_scatter(c);
    case Collective::broadcast:
      return broadcast(c);
    case Collective::gather:
      return gather(c);
    case Collective::scatter:
      return scatter(c);
    case Collective::all_to_all:
      return all_to_all(c);
    case Collective::barrier:
      return check_status(MPI_Barrier(comm_), "MPI_Barrier");
    case Collective::send:
    case Collective::recv:
      fail("a transport runs collectives, got ", to_string(c));
  }
}

void Transport::send(const std::byte* data, int64_t count, size_t item, int to) {
  for (int64_t i = 0; i < count; i += chunk_) {
    const int n = static_cast<int>(std::min(chunk_, count - i));
    requests_.emplace_back();
    check_status(
        MPI_Isend(data + static_cast<size_t>(i) * item, n, type_of_size(item), to, 0, comm_, &requests_.back()),
        "MPI_Isend");
  }
}

void Transport::recv(Bytes data, int64_t count, size_t item, int from) {
  for (int64_t i = 0; i < count; i += chunk_) {
    const int n = static_cast<int>(std::min(chunk_, count - i));
    requests_.emplace_back();
    check_status(
        MPI_Irecv(data + static_cast<size_t>(i) * item, n, type_of_size(item), from, 0, comm_, &requests_.back()),
        "MPI_Irecv");
  }
}

void Transport::complete() {
  std::vector<MPI_Status> statuses(requests_.size());
  const int code = MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), statuses.data());
  requests_.clear();
  if (code == MPI_ERR_IN_STATUS)
    for (const MPI_Status& s : statuses)
      if (s.MPI_ERROR != MPI_ERR_PENDING) check_status(s.MPI_ERROR, "MPI_Waitall");
  check_status(code, "MPI_Waitall");
}

Transport::Bytes Transport::scratch(size_t bytes) {
  if (bytes > scratch_bytes_) {
    scratch_.reset(new std::byte[bytes]);
    scratch_bytes_ = bytes;
  }
  return scratch_.get();
}

// Of one rank's slice, such that the slices of all others fit into scratch.
int64_t Transport::slice_elements(size_t item) const {
  return std::max<int64_t>(1, static_cast<int64_t>(scratch_limit / item) / std::max(1, size_ - 1));
}

void Transport::exchange_and_reduce(const Collective& c, const std::function<Slice(int rank)>& slice_of, Bytes out) {
  const size_t item = item_size(c.out.dtype);
  const Slice own = slice_of(rank_);
  const size_t bytes = static_cast<size_t>(own.count) * item;
  const Bytes received = scratch(bytes * static_cast<size_t>(size_ - 1));
  std::vector<const void*> inputs(static_cast<size_t>(size_), own.data);
  for (int step = 1; step < size_; ++step) {
    const Bytes to = received + bytes * static_cast<size_t>(step - 1);
    inputs[static_cast<size_t>(peer(step))] = to;
    recv(to, own.count, item, peer(step));
  }
  for (int step = 1; step < size_; ++step) {
    const Slice theirs = slice_of(peer(step));
    send(theirs.data, theirs.count, item, peer(step));
  }
  complete();
  void* const output = out;
  reduce_in_rank_order(c.op, c.out.dtype, own.count, inputs, {&output, 1});
}

// Each rank reduces its slice and hands the result to all. A round's results travel along with the next round's slices.
void Transport::all_reduce(const Collective& c) {
  const size_t item = item_size(c.out.dtype);
  const int64_t count = c.out.numel();
  if (size_ == 1) return;
  if (c.out.bytes() * static_cast<size_t>(size_) <= small_bytes && count <= chunk_) return all_reduce_small(c);
  const int64_t round = slice_elements(item) * size_;
  for (int64_t begin = 0; begin < count; begin += round) {
    const int64_t n = std::min(round, count - begin), width = (n + size_ - 1) / size_;
    const auto slice_of = [&](int r) {
      const int64_t first = std::min(n, r * width), last = std::min(n, first + width);
      return Slice{start(c.out) + static_cast<size_t>(begin + first) * item, last - first};
    };
    const Slice own = slice_of(rank_);
    exchange_and_reduce(c, slice_of, own.data);
    for (int step = 1; step < size_; ++step) {
      const Slice theirs = slice_of(peer(step));
      recv(theirs.data, theirs.count, item, peer(step));
    }
    for (int step = 1; step < size_; ++step) send(own.data, own.count, item, peer(step));
  }
  complete();
}

void Transport::all_reduce_small(const Collective& c) {
  const int n = static_cast<int>(c.out.numel());
  const MPI_Datatype type = type_of_size(item_size(c.out.dtype));
  const Bytes all = scratch(small_bytes);
  check_status(MPI_Allgather(c.out.data, n, type, all, n, type, comm_), "MPI_Allgather");
  std::vector<const void*> inputs(static_cast<size_t>(size_));
  for (size_t r = 0; r < inputs.size(); ++r) inputs[r] = all + c.out.bytes() * r;
  void* const output = c.out.data;
  reduce_in_rank_order(c.op, c.out.dtype, n, inputs, {&output, 1});
}

void Transport::reduce_scatter(const Collective& c) {
  const size_t item = item_size(c.out.dtype);
  const int64_t count = c.out.numel(), round = slice_elements(item);
  for (int64_t begin = 0; begin < count; begin += round) {
    const int64_t n = std::min(round, count - begin);
    const auto slice_of = [&](int r) { return Slice{start(c.in) + static_cast<size_t>(r * count + begin) * item, n}; };
    exchange_and_reduce(c, slice_of, start(c.out) + static_cast<size_t>(begin) * item);
  }
}

void Transport::all_gather(const Collective& c) {
  const size_t item = item_size(c.out.dtype);
  if (c.counts.empty() && c.in.numel() <= chunk_) {
    const int n = static_cast<int>(c.in.numel());
    const MPI_Datatype type = type_of_size(item);
    const bool in_place = c.in.data == start(c.out) + c.in.bytes() * static_cast<size_t>(rank_);
    return check_status(MPI_Allgather(in_place ? MPI_IN_PLACE : c.in.data, n, type, c.out.data, n, type, comm_),
                        "MPI_Allgather");
  }
  Bytes to = start(c.out);
  for (int r = 0; r < size_; ++r) {
    const int64_t n = c.counts.empty() ? c.in.numel() : c.counts[static_cast<size_t>(r)];
    if (r == rank_)
      copy_bytes(to, start(c.in), c.in.bytes());
    else
      recv(to, n, item, r);
    to += static_cast<size_t>(n) * item;
  }
  for (int step = 1; step < size_; ++step) send(start(c.in), c.in.numel(), item, peer(step));
  complete();
}

void Transport::broadcast(const Collective& c) {
  const size_t item = item_size(c.out.dtype);
  for (int64_t i = 0; i < c.out.numel(); i += chunk_) {
    const int n = static_cast<int>(std::min(chunk_, c.out.numel() - i));
    check_status(MPI_Bcast(start(c.out) + static_cast<size_t>(i) * item, n, type_of_size(item), c.peer, comm_),
                 "MPI_Bcast");
  }
}

void Transport::gather(const Collective& c) {
  const size_t item = item_size(c.in.dtype);
  if (rank_ != c.peer) send(start(c.in), c.in.numel(), item, c.peer);
  for (int r = 0; r < size_ && rank_ == c.peer; ++r) {
    const Bytes to = start(c.out) + static_cast<size_t>(r) * c.in.bytes();
    if (r == rank_)
      copy_bytes(to, start(c.in), c.in.bytes());
    else
      recv(to, c.in.numel(), item, r);
  }
  complete();
}

void Transport::scatter(const Collective& c) {
  const size_t item = item_size(c.out.dtype);
  if (rank_ != c.peer) recv(start(c.out), c.out.numel(), item, c.peer);
  for (int r = 0; r < size_ && rank_ == c.peer; ++r) {
    const Bytes from = start(c.in) + static_cast<size_t>(r) * c.out.bytes();
    if (r == rank_)
      copy_bytes(start(c.out), from, c.out.bytes());
    else
      send(from, c.out.numel(), item, r);
  }
  complete();
}

void Transport::all_to_all(const Collective& c) {
  const size_t item = item_size(c.out.dtype), bytes = c.in.bytes() / static_cast<size_t>(size_);
  const int64_t n = c.in.numel() / size_;
  const auto block = [&](const View& v, int r) { return start(v) + bytes * static_cast<size_t>(r); };
  copy_bytes(block(c.out, rank_), block(c.in, rank_), bytes);
  for (int step = 1; step < size_; ++step) recv(block(c.out, peer(step)), n, item, peer(step));
  for (int step = 1; step < size_; ++step) send(block(c.in, peer(step)), n, item, peer(step));
  complete();
}

}  // namespace loom::mpi
