// SPDX-License-Identifier: Apache-2.0
// Where the ranks of a communicator of the stand-in for NCCL meet: a thread at a socket, in the process that made the
// communicator's id. Each rank sends what it has for a collective, and gets back what comes of it.
#pragma once

#include <nccl.h>

#include <cstdint>
#include <string>
#include <vector>

namespace loom::cuda::emulated {

struct Request {
  enum Kind : int32_t { join, all_reduce, reduce_scatter, all_gather, broadcast, exchange, split, finalize };
  Kind kind = join;
  int32_t type = ncclUint8, op = ncclSum;
  int32_t root = 0;  // split: the color
  int32_t rank = 0;  // join: of so many ranks; split: the key
  int32_t ranks = 0;
  uint64_t count = 0;  // elements of a rank's part
  uint64_t bytes = 0;  // that follow
};
struct Answer {
  int32_t result = ncclSuccess;
  uint64_t bytes = 0;  // that follow
};
// Of an exchange: this many bytes to or from a rank. A list of those sent (with what is sent behind it), one of those
// received, each with its length before it.
struct Part {
  int32_t peer = 0;
  uint64_t bytes = 0;
};
// The answer to a split.
struct Seat {
  ncclUniqueId id{};
  int32_t rank = 0, ranks = 0;
};

// A new meeting point, and its thread.
ncclUniqueId open_hub();

int connect_to(const ncclUniqueId& id);
// False when the other side has gone.
bool send_all(int socket, const void* data, size_t bytes);
bool receive_all(int socket, void* data, size_t bytes);
size_t type_bytes(int type);

}  // namespace loom::cuda::emulated
