// What a Fabric is told: Lightning Fabric's constructor arguments, names, defaults and values.
#pragma once

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include <loom/distributed/communicator.h>

namespace loom {

class Logger;
class Callback;
class Strategy;
class Precision;

// "auto", a number, or a number as text ("2").
using Devices = std::variant<std::string, int>;

// What usually nobody sets: the parts that Fabric would choose by itself.
struct FabricPlugins {
  // The ranks to use, instead of those of the launcher: a host program's MPI communicator
  // (mpi_communicator_from_handle), or a thread's (run_threads).
  std::shared_ptr<Communicator> communicator = {};
  // An own strategy or precision, instead of one by name. Of one Fabric.
  std::shared_ptr<Strategy> strategy = {};
  std::shared_ptr<Precision> precision = {};
};

struct FabricOptions {
  std::string accelerator = "auto";  // auto, cpu, cuda (gpu)
  std::string strategy = "auto";     // auto: single for one rank, ddp for more
  Devices devices = "auto";          // ranks per node; auto: what the launcher gives, else 1 on cpu
  int num_nodes = 1;
  std::string precision = "32-true";
  std::vector<std::shared_ptr<Logger>> loggers = {};
  std::vector<std::shared_ptr<Callback>> callbacks = {};
  FabricPlugins plugins = {};
};

}  // namespace loom
