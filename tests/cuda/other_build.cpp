// SPDX-License-Identifier: Apache-2.0
// A CUDA plugin that was compiled against other headers than the library.
#include <loom/accelerators/cuda.h>

extern "C" [[gnu::visibility("default")]] void loom_cuda_devices(loom::CudaPlugin& plugin) {
  plugin.abi = 1;
  plugin.devices = 8;
}
