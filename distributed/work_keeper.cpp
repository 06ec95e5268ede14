#include <loom/distributed/work_keeper.h>

#include <mutex>
#include <utility>
#include <vector>

namespace loom {

namespace {

struct Kept {
  std::any owner;
  Work work;
};

// Never destroyed: a communicator's thread may be at work when the process ends.
struct Keeper {
  std::mutex mutex;
  std::vector<Kept> kept;
};
Keeper& keeper() {
  static Keeper* const instance = new Keeper;
  return *instance;
}

}  // namespace

void keep_until_done(std::any owner, const Work& work) {
  if (work.done()) return;
  const std::lock_guard lock(keeper().mutex);
  std::erase_if(keeper().kept, [](const Kept& k) { return k.work.done(); });
  keeper().kept.push_back({std::move(owner), work});
}

}  // namespace loom
