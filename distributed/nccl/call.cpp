#include <loom/accelerators/error.h>
#include <loom/distributed/nccl/call.h>

namespace loom::nccl {

std::string describe(ncclResult_t result, std::string_view call, ncclComm_t comm) {
  const char* const more = ncclGetLastError(comm);
  const std::string text = str(call, ": ", ncclGetErrorString(result));
  return more == nullptr || *more == '\0' ? text : str(text, " (", more, ')');
}

void check_call(ncclResult_t result, std::string_view call, ncclComm_t comm) {
  if (result != ncclSuccess && result != ncclInProgress) fail(describe(result, call, comm));
}

ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return ncclFloat64;
    case DType::f32:
      return ncclFloat32;
    case DType::f16:
      return ncclFloat16;
    case DType::bf16:
      return ncclBfloat16;
    case DType::i64:
      return ncclInt64;
    case DType::i32:
      return ncclInt32;
    case DType::u8:
    case DType::boolean:
      return ncclUint8;
  }
  fail("NCCL has no dtype ", dtype, "; convert it first");
}

ncclRedOp_t op_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::mean:
      return ncclAvg;
    case ReduceOp::min:
      return ncclMin;
    case ReduceOp::max:
      return ncclMax;
    case ReduceOp::product:
      return ncclProd;
    case ReduceOp::sum:
      break;
  }
  return ncclSum;
}

}  // namespace loom::nccl
