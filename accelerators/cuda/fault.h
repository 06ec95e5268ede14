// What a kernel finds wrong with its input, such as an index outside its tensor: it goes on with something harmless,
// and leaves a note that the host reads when it next waits for the device, where it becomes an Error.
#pragma once

#include <cstdint>

namespace loom::cuda {

enum class FaultKind : int { none, index, target, overrun, norm };

// In host memory that the device writes to. The first one counts.
struct Fault {
  int kind = 0;
  const char* op = nullptr;  // a text of the host's
  int64_t value = 0;         // the index that was given; the byte that was written to (overrun)
  int64_t at = 0;            // the dimension (index), the row (target), the number of the block (overrun)
  int64_t extent = 0;        // that indices are below; bytes of the block (overrun)
  int64_t ignored = 0;       // what a target may be beside (target)
};

#if defined(__CUDACC__)
// `kind` is taken last of all by the host, so it is written last.
__device__ inline void report(Fault* fault, FaultKind kind, const char* op, int64_t value, int64_t at, int64_t extent,
                              int64_t ignored = 0) {
  if (atomicCAS_system(&fault->kind, 0, -1) != 0) return;
  fault->op = op;
  fault->value = value;
  fault->at = at;
  fault->extent = extent;
  fault->ignored = ignored;
  __threadfence_system();
  atomicExch_system(&fault->kind, static_cast<int>(kind));
}
#endif

}  // namespace loom::cuda
