#include <loom/fabric/placement.h>

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cores.h>
#include <loom/accelerators/cuda.h>

namespace loom {

namespace {

bool switched_on(const char* name) {
  const char* const value = std::getenv(name);
  return value && std::strcmp(value, "1") == 0;
}

// The number, or -1 for "auto".
int explicit_number(const Devices& devices) {
  if (const int* const n = std::get_if<int>(&devices)) {
    check(*n >= 1, "devices=", *n, ": expected \"auto\" or a number of at least 1");
    return *n;
  }
  const auto& text = std::get<std::string>(devices);
  if (text == "auto") return -1;
  int n = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), n);
  check(status == std::errc() && end == text.data() + text.size() && n >= 1, "devices='", text,
        "': expected \"auto\" or a number of at least 1");
  return n;
}

// The program's own arguments, argv[0] replaced by the path of the executable.
std::vector<std::string> own_command() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  check(length > 0 && !words.empty(), "launch: cannot read the program's own path and arguments from /proc/self");
  words[0] = std::string(path, static_cast<size_t>(length));
  return words;
}

void set_default(const char* name, const char* value) { setenv(name, value, 0); }

// Containers may forbid reading another process's memory, which Open MPI 4 tries and stumbles over.
bool may_read_processes() {
  char from = 1, to = 0;
  const iovec local{&to, 1}, remote{&from, 1};
  return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == 1;
}

void allow_root(int ranks) {
  if (geteuid() != 0) return;
  check(switched_on("LOOM_ALLOW_RUN_AS_ROOT") || std::getenv("OMPI_ALLOW_RUN_AS_ROOT"), "devices=", ranks,
        ": mpirun refuses to run as root; use another user, or set LOOM_ALLOW_RUN_AS_ROOT=1");
  set_default("OMPI_ALLOW_RUN_AS_ROOT", "1");
  set_default("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
}

}  // namespace

std::string to_string(const Devices& devices) {
  const int n = explicit_number(devices);
  return n < 0 ? "auto" : std::to_string(n);
}

int requested_ranks(const Devices& devices) {
  const int n = explicit_number(devices);
  if (n < 0) return 1;
  const int cores = available_cores();
  check(n <= cores || switched_on("LOOM_OVERSUBSCRIBE"), "devices=", n, ": this machine has ", cores,
        " cores for ranks; ask for fewer, or set LOOM_OVERSUBSCRIBE=1 to let ranks share cores");
  return n;
}

void check_accelerator_name(const std::string& name) {
  check(name == "auto" || name == "cpu" || name == "cuda" || name == "gpu", "unknown accelerator '", name,
        "'; available: auto, cpu", device_count(Device::cuda) > 0 ? ", cuda" : "");
}

int gpu_of_rank(const std::string& accelerator, int local_rank, const std::vector<std::vector<std::string>>& seen) {
  const std::vector<std::string>& mine = seen[static_cast<size_t>(local_rank)];
  check(!mine.empty(), "accelerator '", accelerator, "': ", cuda_description(), "; use 'cpu' or 'auto'");
  std::set<std::string> all;
  for (const auto& ids : seen) all.insert(ids.begin(), ids.end());
  const bool one_each = std::ranges::all_of(seen, [](const auto& ids) { return ids.size() == 1; });
  if (one_each && all.size() == seen.size()) return 0;
  if (switched_on("LOOM_SHARE_GPUS")) return local_rank % static_cast<int>(mine.size());
  check(local_rank < std::ssize(mine), "accelerator '", accelerator, "': local rank ", local_rank,
        " has no GPU, this machine has ", mine.size(), " and ", seen.size(), " ranks; start ", mine.size(),
        mine.size() == 1 ? " rank" : " ranks", ", or use accelerator 'cpu'");
  return local_rank;
}

void check_launched_ranks(const Devices& devices, int num_nodes, int local_size, int nodes) {
  const int n = explicit_number(devices);
  check(num_nodes >= 1, "num_nodes=", num_nodes, ": expected a number of at least 1");
  check(n < 0 || n == local_size, "devices=", n, ": the launcher started ", local_size,
        local_size == 1 ? " rank" : " ranks", " on this node; start with -n ", n * num_nodes,
        " or use devices=\"auto\"");
  check(num_nodes == 1 || num_nodes == nodes, "num_nodes=", num_nodes, ": the launcher started ranks on ", nodes,
        nodes == 1 ? " node" : " nodes");
}

void restart_under_mpirun(int ranks) {
  allow_root(ranks);
  // A rank's threads are to use all cores: bound to one, they would pile up there. mpirun counts cores in its own way;
  // requested_ranks() has counted them already.
  set_default("OMPI_MCA_hwloc_base_binding_policy", "none");
  set_default("OMPI_MCA_rmaps_base_oversubscribe", "1");
  if (!may_read_processes()) set_default("OMPI_MCA_btl_vader_single_copy_mechanism", "none");
  if (isatty(STDOUT_FILENO) == 1) set_default("LOOM_PROGRESS", "bar");  // ranks cannot tell: theirs is mpirun's pipe
  std::vector<std::string> words = own_command();
  words.insert(words.begin(), {"mpirun", "-n", std::to_string(ranks)});
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  execvp("mpirun", arguments.data());
  fail("devices=", ranks, ": cannot start mpirun: ", std::strerror(errno), "; install openmpi-bin, or use devices=1");
}

}  // namespace loom
