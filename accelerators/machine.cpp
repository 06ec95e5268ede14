#include <loom/accelerators/machine.h>

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>

namespace loom {

int positive_from_environment(const char* name) {
  const char* const text = std::getenv(name);
  if (text == nullptr) return 0;
  const std::string_view view(text);
  int value = 0;
  const auto [end, status] = std::from_chars(view.data(), view.data() + view.size(), value);
  return status == std::errc() && end == view.data() + view.size() && value > 0 ? value : -1;
}

// MPI is asked first: under mpirun, Slurm's variables describe the daemon.
int local_ranks() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"})
    if (const int n = positive_from_environment(name); n > 0) return n;
  if (const char* const tasks = std::getenv("SLURM_GTIDS")) {  // this node's, as "0,1,2"; in a batch script "0"
    const std::string_view text(tasks);
    return 1 + static_cast<int>(std::count(text.begin(), text.end(), ','));
  }
  return 1;
}

namespace {

constexpr int64_t unlimited = std::numeric_limits<int64_t>::max();

// The number that a file holds; "max", and files that are not there, are no limit.
int64_t limit_in(const std::filesystem::path& file) {
  int64_t bytes = 0;
  return std::ifstream(file) >> bytes && bytes > 0 ? bytes : unlimited;
}

// Of a group and all that it lies in. In a container the path may be the host's, of which only `root` is visible.
int64_t lowest(const std::filesystem::path& root, std::string_view path, const char* file) {
  int64_t bytes = unlimited;
  std::filesystem::path group = std::filesystem::path(path).relative_path();
  for (;; group = group.parent_path()) {
    bytes = std::min(bytes, limit_in(root / group / file));
    if (group.empty()) return bytes;
  }
}

}  // namespace

int64_t control_group_memory(const std::filesystem::path& membership, const std::filesystem::path& root) {
  int64_t bytes = unlimited;
  std::ifstream groups(membership);
  for (std::string line; std::getline(groups, line);) {  // "number:controllers:path"; version 2 is "0::path"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string_view path = std::string_view(line).substr(second + 1);
    if (controllers == ",,")
      bytes = std::min(bytes, lowest(root, path, "memory.max"));
    else if (controllers.find(",memory,") != std::string::npos)
      bytes = std::min(bytes, lowest(root / "memory", path, "memory.limit_in_bytes"));
  }
  return bytes;
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (const size_t colon = line.find(": "); line.starts_with("model name") && colon != std::string::npos)
      return line.substr(colon + 2);
  return "cpu";
}

int64_t usable_memory() {
  const auto physical = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  return std::min(physical, control_group_memory("/proc/self/cgroup", "/sys/fs/cgroup"));
}

}  // namespace loom
