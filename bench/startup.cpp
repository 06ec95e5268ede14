// When the first op is done, on the clock that all processes of the machine share, so that whoever started this one can
// subtract; and how much memory is resident then. mpi=1: after joining MPI, as a rank does.
#include <chrono>
#include <memory>

#include <loom/distributed/mpi.h>
#include <loom/loom.h>

#include "memory.h"
#include "record.h"
#include "row.h"

namespace bench {

void run_startup(const Options& options) {
  std::shared_ptr<loom::Communicator> ranks;
  if (options.flag("mpi")) ranks = loom::mpi_communicator();
  const loom::Tensor sum = loom::ones({4}) + loom::ones({4});
  loom::check(sum[0].item<float>() == 2, "1 + 1 is not 2");
  const double now = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  Record("time to first op", now, "clock").print();
  Record("resident memory", resident_mib(), "MiB").print();
}

}  // namespace bench
