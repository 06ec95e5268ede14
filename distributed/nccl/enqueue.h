// A collective as calls of NCCL.
#pragma once

#include <loom/distributed/nccl/call.h>

namespace loom::nccl {

// Puts it into the stream, as one group of calls; the library may still be about it when this returns
// (ncclCommGetAsyncError tells). rank, size: of comm. Throws Error.
void enqueue(const Collective& c, ncclComm_t comm, int rank, int size, cudaStream_t stream);

}  // namespace loom::nccl
