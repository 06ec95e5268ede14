// Communication that a step still waits for when a device computes meanwhile: sleeping stands for its work. A step is a
// backward that hands over a bucket every now and then, as DDP does, and at its end waits for all. Ideal is what takes
// longer: the work, or the communication alone.
#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

#include <loom/distributed/mpi.h>

#include "ranks.h"
#include "record.h"
#include "timing.h"

namespace bench {

using namespace loom;

void run_exposed(const Options& options) {
  const auto ranks = ranks_of(options);
  const int64_t buckets = options.number("buckets", 16),
                bytes = options.smoke() ? 4096 : options.number("bytes", 2 << 20);
  const int64_t steps = options.smoke() ? 2 : 20, n = bytes / int64_t{sizeof(float)};
  const auto memory = ranks->allocate(static_cast<size_t>(buckets * bytes));
  std::vector<Work> works(static_cast<size_t>(buckets));
  const auto step = [&](std::chrono::duration<double> work) {
    for (int64_t b = 0; b < buckets; ++b) {
      if (work.count() > 0) std::this_thread::sleep_for(work / buckets);
      const View bucket = view_over(static_cast<float*>(memory.get()) + b * n, DType::f32, {n});
      works[static_cast<size_t>(b)] = ranks->all_reduce(bucket, ReduceOp::mean);
    }
    for (const Work& w : works) w.wait();
  };
  using Seconds = std::chrono::duration<double>;
  const double communication = time_steps(5, steps, [&] { step(Seconds(0)); }).median;
  for (const int64_t milliseconds : {2, 10, 50}) {
    const Seconds work(static_cast<double>(milliseconds) * 1e-3);
    const double sleeping = time_steps(2, steps, [&] {
                              for (int64_t b = 0; b < buckets; ++b) std::this_thread::sleep_for(work / buckets);
                            }).median;
    const double both = time_steps(2, steps, [&] { step(work); }).median, ideal = std::max(sleeping, communication);
    if (ranks->rank() == 0)
      Record(str(milliseconds, " ms of work"), both * 1e3, "ms")
          .add("limit", ideal * 1e3)
          .add("work", sleeping * 1e3)
          .add("communication", communication * 1e3)
          .print();
  }
}

}  // namespace bench
