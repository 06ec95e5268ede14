// What kernels share that read or write by position.
#pragma once

#include <loom/accelerators/cpu/index_plan.h>
#include <loom/accelerators/cuda/fault.h>
#include <loom/accelerators/cuda/launch.h>
#include <loom/accelerators/cuda/layout.h>

namespace loom::cuda {

// What an index may be. One outside is noted for the host, and what it stands for is left out.
struct Bounds {
  Fault* fault;
  const char* op;
  int64_t dim, extent;

#if defined(__CUDACC__)
  __device__ __forceinline__ bool hold(int64_t index) const {
    if (index >= 0 && index < extent) return true;
    report(fault, FaultKind::index, op, index, dim, extent);
    return false;
  }
#endif
};

// One of a plan's views without the dimensions that `keep` refuses; `still` is the dimension that it does not go along
// (none: -1).
template <class Keep>
View part_of(const View& view, const cpu::Plan& p, cpu::Role role, int still, const Keep& keep) {
  View out = view;
  out.shape = out.strides = Dims();
  for (int d = 0; d < p.shape.size(); ++d) {
    if (!keep(d)) continue;
    out.shape.push_back(p.shape[d]);
    out.strides.push_back(d == still ? 0 : p.strides[role][d]);
  }
  return out;
}

}  // namespace loom::cuda
