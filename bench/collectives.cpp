// Collectives between the ranks that mpirun started (alone: one rank). peers/collectives.cpp is the same with plain
// MPI.
#include "collectives.h"

#include <functional>

#include <loom/distributed/mpi.h>

#include "ranks.h"
#include "record.h"
#include "timing.h"

namespace bench {

using namespace loom;

std::unique_ptr<Communicator> ranks_of(const Options& options) {
  if (!started_by_mpi()) return self_communicator();
  const std::string mode = options.text("mode", "automatic");
  if (mode == "threaded") return mpi_communicator({.mode = MpiMode::threaded});
  if (mode == "inline") return mpi_communicator({.mode = MpiMode::inline_mode});
  check(mode == "automatic", "mode: expected threaded, inline or automatic, got '", mode, "'");
  return mpi_communicator();
}

namespace {

// The collective over `whole`, of which each rank has or gets a `part`.
std::function<void()> step_of(const std::string& name, Communicator& ranks, const View& whole, const View& part) {
  if (name == "all_reduce") return [=, &ranks] { ranks.all_reduce(whole).wait(); };
  if (name == "reduce_scatter") return [=, &ranks] { ranks.reduce_scatter(part, whole).wait(); };
  if (name == "all_gather") return [=, &ranks] { ranks.all_gather(whole, part).wait(); };
  fail("collective: expected all_reduce, reduce_scatter or all_gather, got '", name, "'");
}

}  // namespace

void run_collective(const Options& options) {
  const auto ranks = ranks_of(options);
  const std::string name = options.text("collective", "all_reduce"), memory = options.text("memory", "own");
  check(memory == "own" || memory == "shared", "memory: expected own or shared, got '", memory, "'");
  for (const CollectiveSize& size : collective_sizes) {
    if (options.smoke() && size.bytes > (64 << 10)) break;
    const int64_t part = std::max<int64_t>(1, size.bytes / int64_t{sizeof(float)} / ranks->size());
    const int64_t whole = part * ranks->size();
    const size_t room = static_cast<size_t>(whole + part) * sizeof(float);
    const auto values = memory == "shared" ? ranks->allocate(room) : self_communicator()->allocate(room);
    auto* const at = static_cast<float*>(values.get());
    const auto step =
        step_of(name, *ranks, view_over(at, DType::f32, {whole}), view_over(at + whole, DType::f32, {part}));
    const int64_t rounds = options.smoke() ? 2 : rounds_of(size.bytes);
    const Times times = time_steps(rounds / 10 + 1, rounds, step);
    const double bytes = static_cast<double>(whole) * sizeof(float);
    if (ranks->rank() == 0) Record(size.name, times.median * 1e6, "us").add("bytes", bytes).print();
  }
}

}  // namespace bench
