// What started this program, and how its ranks find each other.
//
// To add one (a cluster manager whose ranks meet in another way): a row in environment.cpp's table.
#pragma once

#include <memory>
#include <string_view>

#include <loom/distributed/communicator.h>
#include <loom/fabric/options.h>

namespace loom {

struct Environment {
  std::string_view name;
  // Whether it started this process; reads environment variables alone.
  bool (*detected)();
  // Joins its ranks. Throws Error where they cannot find each other, and where the options contradict it.
  std::shared_ptr<Communicator> (*join)(const FabricOptions& options);
};

// The first that is detected: mpi (mpirun, srun --mpi=pmix), srun without pmix (an error to join), alone.
const Environment& environment();

}  // namespace loom
