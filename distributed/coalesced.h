// Many small tensors as few large broadcasts.
#pragma once

#include <cstdint>
#include <span>

#include <loom/distributed/communicator.h>
#include <loom/tensor/tensor.h>

namespace loom {

// Overwrites the tensors with the root's, in pieces of about `chunk_bytes`, of which at most two are under way.
// Returns when all have arrived. Collective: shapes and dtypes must be the same on all ranks; strides need not be.
void broadcast_coalesced(Communicator& communicator, std::span<const Tensor> tensors, int root = 0,
                         int64_t chunk_bytes = int64_t{250} << 20);

}  // namespace loom
