// How many messages went between two ranks, by tag: a rank that leaves tells each other one, so that nobody waits for
// what will not come.
#pragma once

#include <cstdint>

namespace loom::mpi {

struct Traffic {
  int64_t tag = 0;
  int64_t sent = 0, received = 0;  // issued, by the rank that tells
};

}  // namespace loom::mpi
