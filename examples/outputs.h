// Where a program is going to write, tried before it trains for hours.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <system_error>

#include <loom/accelerators/atomic_file.h>
#include <loom/fabric/agreement.h>
#include <loom/fabric/csv_logger.h>
#include <loom/fabric/directory_lock.h>
#include <loom/loom.h>

namespace loom {

// Runs f on rank 0; what goes wrong there is raised on all ranks, which all call.
inline void on_rank_zero(Fabric& fabric, const std::function<void()>& f) {
  const std::string error = fabric.broadcast(fabric.is_global_zero() ? error_of(f) : "");
  together(fabric.communicator(), [&] { check(error.empty(), error); });
}

// Makes the folder where it is missing, and in it a temporary that is gone at once; a file that is there stays. The
// flag starts the error.
inline void check_writable(Fabric& fabric, const std::string& flag, const std::filesystem::path& file) {
  on_rank_zero(fabric, [&] {
    const auto folder = std::filesystem::absolute(file).parent_path();
    std::error_code status;
    std::filesystem::create_directories(folder, status);
    check(!status, flag, ": cannot make the directory ", folder.string(), ": ", status.message());
    check(!std::filesystem::is_directory(file, status), flag, ": ", file.string(), " is a directory, not a file");
    const AtomicFile temporary(file, flag);
  });
}

// The same for the file of a checkpoint, whose folder must not be another program's.
inline void check_checkpoint_writable(Fabric& fabric, const std::filesystem::path& file) {
  check_writable(fabric, "--checkpoints", file);
  on_rank_zero(fabric, [&] { const DirectoryLock lock(std::filesystem::absolute(file).parent_path()); });
}

// The same for what CsvLogger writes there.
inline void check_log_writable(Fabric& fabric, const std::filesystem::path& folder) {
  check_writable(fabric, "--log", folder / CsvLoggerOptions().name / "metrics.csv");
}

}  // namespace loom
