// What libloom_nccl.so hands over to the library that loads it.
#include <dlfcn.h>

#include <loom/accelerators/cuda_abi.h>
#include <loom/distributed/nccl.h>
#include <loom/distributed/nccl/call.h>
#include <loom/distributed/nccl/communicator.h>

extern "C" [[gnu::visibility("default")]] void loom_nccl(loom::NcclPlugin& plugin) {
  plugin.abi = loom::interface_digest(LOOM_RANKS_INTERFACE);
  int version = 0;
  if (const ncclResult_t result = ncclGetVersion(&version); result != ncclSuccess) {
    plugin.description = loom::nccl::describe(result, "ncclGetVersion", nullptr);
    return;
  }
  Dl_info library{};
  const bool found = dladdr(reinterpret_cast<const void*>(&ncclGetVersion), &library) != 0;
  plugin.description = loom::str("NCCL ", version / 10000, '.', version / 100 % 100, '.', version % 100,
                                 found ? loom::str(" (", library.dli_fname, ")") : std::string());
  plugin.make = &loom::nccl::make_communicator;
}
