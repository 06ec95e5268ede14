// Sums over the ranks that mpirun started (alone: one rank, the identity). peers/all_reduce.cpp is the same with plain
// MPI.
#include <algorithm>
#include <vector>

#include <loom/distributed/mpi.h>

#include "record.h"
#include "row.h"
#include "timing.h"

namespace bench {

using namespace loom;

namespace {

struct Size {
  const char* name;
  int64_t bytes;
};
constexpr Size sizes[] = {{"4 KB", 4 << 10}, {"64 KB", 64 << 10}, {"1 MB", 1 << 20},
                          {"4 MB", 4 << 20}, {"16 MB", 16 << 20}, {"100 MB", 100 << 20}};

std::unique_ptr<Communicator> communicator(const std::string& mode) {
  if (!started_by_mpi()) return self_communicator();
  check(mode == "threaded" || mode == "inline", "mode: expected threaded or inline, got '", mode, "'");
  return mpi_communicator({.mode = mode == "inline" ? MpiMode::inline_mode : MpiMode::threaded});
}

}  // namespace

void run_all_reduce(const Options& options) {
  const auto ranks = communicator(options.text("mode", "threaded"));
  for (const Size& size : sizes) {
    if (options.smoke() && size.bytes > (64 << 10)) break;
    std::vector<float> values(static_cast<size_t>(size.bytes) / sizeof(float));
    const View view = view_over(values.data(), DType::f32, {static_cast<int64_t>(values.size())});
    // The same number of rounds on every rank and for the peer: about 1 GB in all.
    const int64_t rounds = options.smoke() ? 2 : std::clamp<int64_t>((int64_t{1} << 30) / size.bytes, 10, 2000);
    const Times times = time_steps(rounds / 10 + 1, rounds, [&] { ranks->all_reduce(view).wait(); });
    if (ranks->rank() == 0)
      Record(size.name, static_cast<double>(size.bytes) / times.median * 1e-9, "GB/s")
          .add("us", times.median * 1e6)
          .print();
  }
}

}  // namespace bench
