// Measures Loom, one row at a time: prints one JSON object a line for each result. scripts/bench runs all rows, several
// times, with PyTorch beside them (bench/README.md).
//   loom_bench ROW [key=value...]
#include <array>
#include <exception>
#include <iostream>
#include <string_view>

#include "row.h"

namespace {

constexpr std::array rows{
    bench::Row{"machine", "what the machine can do at most   device=cpu", bench::run_machine},
    bench::Row{"fixture", "weights and samples for both sides   model=NAME out=DIR samples=256 [the model's keys]",
               bench::run_fixture},
    bench::Row{"train",
               "a training step   model=NAME [its keys] fixture=DIR batch=64 steps=10 warmup=3 device=cpu "
               "precision=32-true graph=1",
               bench::run_train},
    bench::Row{"growth", "a training step over a key   model=NAME over=KEY values=16-32-64 [as train]",
               bench::run_growth},
    bench::Row{"collective",
               "4 B to 256 MB   collective=all_reduce|reduce_scatter|all_gather mode=threaded|inline memory=own|shared",
               bench::run_collective},
    bench::Row{"exposed", "what a step waits for communication while a device works   mode=.. buckets=16 bytes=2097152",
               bench::run_exposed},
    bench::Row{"fork_join", "what handing something to two threads costs", bench::run_fork_join},
    bench::Row{"startup", "the time of the first op's end, and the memory then   mpi=1", bench::run_startup},
    bench::Row{"micro",
               "single operations beside the limits   cases=FILE group=NAME milliseconds=10 device=cpu dtype=f32",
               bench::run_micro},
};

int usage() {
  std::cerr << "usage: loom_bench ROW [key=value...]\n";
  for (const bench::Row& row : rows) std::cerr << "  " << row.name << ": " << row.what << "\n";
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return usage();
  bench::Options options;
  for (int i = 2; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t split = argument.find('=');
    if (split == std::string::npos) return usage();
    options.set(argument.substr(0, split), argument.substr(split + 1));
  }
  try {
    for (const bench::Row& row : rows)
      if (row.name == std::string_view(argv[1])) {
        row.run(options);
        return 0;
      }
  } catch (const std::exception& error) {
    std::cerr << "loom_bench: " << error.what() << "\n";
    return 1;
  }
  return usage();
}
