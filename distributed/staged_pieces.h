// One collective on memory of a GPU, through pinned memory.
#pragma once

#include <cstdint>

#include <loom/accelerators/stream.h>
#include <loom/distributed/communicator.h>

namespace loom {

// Runs it over `ranks`, piece by piece, once `ready` has happened; what the device has still to do then is done with
// the event returned. piece_bytes: of what this rank sends or receives at a time, about.
Event run_in_pieces(Communicator& ranks, const Collective& c, Device device, const Event& ready, int64_t piece_bytes);

}  // namespace loom
