// Copies between a GPU and the host, or two GPUs.
#pragma once

#include <loom/accelerators/cuda/device.h>
#include <loom/accelerators/view.h>

namespace loom::cuda {

// y = x, dense and of one dtype; one of them lies on `gpu`. in_stream: pinned memory of the host is left to the stream
// (Accelerator::copy_in_stream).
void transfer(Gpu& gpu, const View& y, const View& x, bool in_stream);

}  // namespace loom::cuda
