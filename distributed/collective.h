// One collective as data: what a communicator executes, what checked mode compares and what an observer sees.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <loom/accelerators/profile.h>
#include <loom/accelerators/view.h>

namespace loom {

enum class ReduceOp : uint8_t { sum, mean, min, max, product };
std::string to_string(ReduceOp op);

struct Collective {
  enum Kind : uint8_t {
    all_reduce,
    all_gather,
    reduce_scatter,
    broadcast,
    gather,
    scatter,
    all_to_all,
    send,
    recv,
    barrier
  };
  Kind kind = barrier;
  View out, in;  // dense; all_reduce and broadcast work in place on `out`; unused views have null data
  ReduceOp op = ReduceOp::sum;
  int peer = 0;                 // root, destination or source
  int tag = 0;                  // send, recv
  std::vector<int64_t> counts;  // ragged all_gather: elements of each rank; empty when all are equal
  uint64_t sequence = 0;  // number of this collective in its group, from 0; send and recv have a count of their own

  bool between_two() const { return kind == send || kind == recv; }
};
std::string to_string(Collective::Kind kind);
std::string to_string(const Collective& c);  // "all_reduce #12 f32[1024] sum"

// What observers are told of it, in a group of `size` ranks.
profile::Description description(const Collective& c, int size);

// What must be equal on all ranks, as plain bytes. The count is that of one rank's part (of all parts where ragged).
struct Fingerprint {
  uint64_t sequence = 0;
  int64_t count = 0;
  uint64_t parts = 0;  // hash of a ragged all_gather's counts
  int32_t peer = 0;
  int32_t tag = 0;
  Collective::Kind kind = Collective::barrier;
  DType dtype = DType::f32;
  ReduceOp op = ReduceOp::sum;
  bool operator==(const Fingerprint&) const = default;
};
Fingerprint fingerprint(const Collective& c);
std::string to_string(const Fingerprint& f);

// Empty when all ranks are in the same collective, else the text that names two sides that differ.
std::string mismatch(std::span<const Fingerprint> ranks);
// The text for a message of this dtype and count that came to rank's recv, which expects another.
std::string unexpected_message(const Collective& recv, int rank, DType sent, int64_t count);

}  // namespace loom
