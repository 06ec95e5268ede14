// fabric.launch: where the ranks come from, and what becomes of errors.
#include <atomic>
#include <chrono>
#include <exception>
#include <iostream>
#include <sstream>
#include <thread>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cores.h>
#include <loom/accelerators/cuda.h>
#include <loom/accelerators/profile.h>
#include <loom/accelerators/threads.h>
#include <loom/distributed/mpi.h>
#include <loom/fabric/agreement.h>
#include <loom/fabric/device_ranks.h>
#include <loom/fabric/directory_lock.h>
#include <loom/fabric/environment.h>
#include <loom/fabric/fabric.h>
#include <loom/fabric/placement.h>
#include <loom/tensor/context.h>

namespace loom {

namespace {

// The GPUs that each rank of this node sees, by local rank. Collective.
std::vector<std::vector<std::string>> gpus_on_node(Communicator& ranks, const NodePlacement& place, bool wanted) {
  std::string mine = str(place.node_rank, " ", place.local_rank);
  if (wanted)
    for (const std::string& id : cuda_device_ids()) mine += str(" ", id);
  std::vector<std::vector<std::string>> out(static_cast<size_t>(place.local_size));
  for (const std::string& line : ranks.all_gather_bytes(mine)) {
    std::istringstream words(line);
    int node = 0, local = 0;
    words >> node >> local;
    if (node != place.node_rank) continue;
    for (std::string id; words >> id;) out[static_cast<size_t>(local)].push_back(id);
  }
  return out;
}

Device resolve_accelerator(const std::string& name, int local_rank, const std::vector<std::vector<std::string>>& gpus) {
  check_accelerator_name(name);
  if (name == "cpu" || (name == "auto" && gpus[static_cast<size_t>(local_rank)].empty())) return Device::cpu;
  return {Device::cuda, gpu_of_rank(name, local_rank, gpus)};
}

// Once in a program: which device it runs on, and where a build for GPUs finds none, why. On the CPU that was asked for
// there is nothing to say.
void tell_device(Communicator& ranks, Device device, const std::string& accelerator) {
  static std::atomic<bool> told = false;
  if (ranks.rank() != 0 || accelerator == "cpu") return;
  std::string line;
  if (device.kind == Device::cuda)
    line = str(ranks.size(), ranks.size() == 1 ? " rank" : " ranks", ", rank 0 on ", device, ": ",
               device_properties(device).name, " (", cuda_libraries(), ")");
  else if (cuda_was_built())
    line = str("on the cpu: ", cuda_description());
  if (!line.empty() && !told.exchange(true)) std::cerr << str("loom: ", line, "\n");
}

// More threads than cores: mpirun binds a rank to one core by default where there are two ranks, and a number of
// threads chosen for one process may be too large for several.
void warn_about_cores(const NodePlacement& place) {
  const int cores = available_cores(), threads = num_threads();
  if (threads > cores)
    std::cerr << str("loom: this rank may run on ", cores, " of the machine's cores but uses ", threads,
                     " threads; start mpirun with --bind-to none, or set LOOM_NUM_THREADS=", cores, " (",
                     place.local_size, " ranks on this node)\n");
  else if (threads > 1 && threads > place.cores)
    std::cerr << str("loom: ", place.local_size, " ranks with ", threads, " threads each share ", place.node_cores,
                     " cores; leave LOOM_NUM_THREADS unset, or set it to ", place.cores, "\n");
}

// As Lightning: nothing is chosen in two ways.
void check_chosen_once(const FabricOptions& options) {
  const FabricOptions unset;
  const auto check_one = [](const char* what, bool is_plugin, const std::string& name, const std::string& by_default) {
    check(!is_plugin || name == by_default, "received both ", what, "='", name, "' and plugins.", what, "; choose one");
  };
  check_one("strategy", options.plugins.strategy != nullptr, options.strategy, unset.strategy);
  check_one("precision", options.plugins.precision != nullptr, options.precision, unset.precision);
}

// Ends all ranks. What goes wrong usually goes wrong everywhere at once (a missing data set), and rank 0's text is
// enough: the others wait a moment to be ended by it.
void end_job(Communicator& ranks, const std::string& error) {
  if (ranks.rank() != 0) std::this_thread::sleep_for(std::chrono::milliseconds(300));
  ranks.abort(error);  // over MPI this prints the text and does not return
  std::cerr << str("[rank ", ranks.rank(), "] ", error, "\n");
}

}  // namespace

void Fabric::join_ranks() {
  if (strategy_) return;
  communicator_ = options_.plugins.communicator ? options_.plugins.communicator : environment().join(options_);
  const NodePlacement place = node_placement(*communicator_);
  local_rank_ = place.local_rank;
  node_rank_ = place.node_rank;
  const auto gpus = gpus_on_node(*communicator_, place, options_.accelerator != "cpu");
  std::shared_ptr<Strategy> strategy = options_.plugins.strategy;
  precision_ = options_.plugins.precision;
  together(*communicator_, [&] {
    check_chosen_once(options_);
    check_launched_ranks(options_.devices, options_.num_nodes, place.local_size, place.nodes);
    if (!precision_) precision_ = make_precision(options_.precision);
    device_ = resolve_accelerator(options_.accelerator, local_rank_, gpus);
    precision_->check_device(device_);
    if (!strategy) strategy = make_strategy(options_.strategy, world_size());
  });
  const bool processes = communicator_->name() == "mpi";
  communicator_ = ranks_on(device_, communicator_);
  strategy_ = std::move(strategy);
  tell_device(*communicator_, device_, options_.accelerator);
  if (const std::string warning = precision_warning(options_.precision); !warning.empty() && is_global_zero())
    std::cerr << "loom: " + warning + "\n";
  context().data_rank = strategy_->data_share(*communicator_).index;
  if (processes) {
    profile::set_process_rank(global_rank());
    suggest_num_threads(place.cores);
  }
  if (local_rank_ == 0) warn_about_cores(place);
}

void Fabric::launch(const std::function<void()>& f) {
  join_ranks();
  const auto finalize = [this] {
    locks_.clear();  // another Fabric may write there from now on
    if (!is_global_zero()) return;
    for (const auto& logger : options_.loggers) logger->finalize();
  };
  try {
    f();
  } catch (...) {  // what was logged until now is what one wants to read
    finalize();
    throw;
  }
  finalize();
}

int Fabric::launch(int, char**, const std::function<void()>& f) {
  bool agreed = false;
  const std::string error = error_of([&] {
    try {
      launch(f);
    } catch (const AgreedError&) {  // every rank is here, with the same text
      agreed = true;
      throw;
    }
  });
  if (error.empty()) return 0;
  if (world_size() > 1 && !agreed)
    end_job(*communicator_, error);
  else if (is_global_zero())
    std::cerr << "error: " + error + "\n";  // in one piece: other ranks write there too
  return 1;
}

}  // namespace loom
