// The one place that includes nccl.h, and the one that judges its results.
#pragma once

#include <nccl.h>

#include <string>
#include <string_view>

#include <loom/accelerators/dtype.h>
#include <loom/distributed/collective.h>

namespace loom::nccl {

// "ncclAllReduce: unhandled cuda error: ...", with what the library says of the communicator (may be null).
std::string describe(ncclResult_t result, std::string_view call, ncclComm_t comm);

// Throws Error unless the call succeeded, or goes on (ncclInProgress).
void check_call(ncclResult_t result, std::string_view call, ncclComm_t comm = nullptr);

ncclDataType_t type_of(DType dtype);  // throws Error where NCCL has none; boolean travels as u8
ncclRedOp_t op_of(ReduceOp op);

}  // namespace loom::nccl
