// What this process may use of the machine it shares with other ranks.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace loom {

// A positive number in an environment variable; 0 where it is unset, or (bad text) -1.
int positive_from_environment(const char* name);

// Ranks on this node, as the launcher's environment tells; 1 without a launcher.
int local_ranks();

// Bytes: the machine's memory, or the limit of the control group (a container, a Slurm job) where that is lower.
int64_t usable_memory();

// "Intel(R) Xeon(R) Platinum 8480C", as /proc/cpuinfo has it; "cpu" where it says nothing.
std::string processor_name();

// The lowest memory limit of the control groups that `membership` (/proc/self/cgroup) names under `root`
// (/sys/fs/cgroup), version 1 or 2; the largest number where there is none.
int64_t control_group_memory(const std::filesystem::path& membership, const std::filesystem::path& root);

}  // namespace loom
