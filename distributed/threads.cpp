#include <algorithm>
#include <exception>

#include <loom/distributed/thread_group.h>
#include <loom/tensor/context.h>

namespace loom {

void ThreadWorld::abort(const std::string& reason, int rank) {
  const std::lock_guard lock(mutex_);
  if (!aborted_.empty()) return;
  culprit_ = rank;
  aborted_ = rank < 0 ? reason : str("aborted by rank ", rank, ": ", reason);
  for (ThreadGroup* g : groups_) g->end(aborted_);
}

int ThreadWorld::culprit() const {
  const std::lock_guard lock(mutex_);
  return culprit_;
}

std::shared_ptr<ThreadGroup> ThreadWorld::group(uint64_t parent, uint64_t split, int color, int size) {
  const std::lock_guard lock(mutex_);
  check(aborted_.empty(), aborted_);
  Forming& forming = forming_[{parent, split, color}];
  if (!forming.group) {
    forming = {std::make_shared<ThreadGroup>(++made_, size, *this), size};
    groups_.push_back(forming.group.get());
  }
  std::shared_ptr<ThreadGroup> out = forming.group;
  if (--forming.missing == 0) forming_.erase({parent, split, color});
  return out;
}

void ThreadWorld::forget(const ThreadGroup* group) {
  const std::lock_guard lock(mutex_);
  std::erase(groups_, group);
}

namespace {

class ThreadCommunicator : public Communicator {
 public:
  ThreadCommunicator(int rank, int size, int world_rank, ThreadWorld& world, std::shared_ptr<ThreadGroup> group)
      : Communicator(rank, size, world.options.communicator),
        world_rank_(world_rank),
        world_(world),
        group_(std::move(group)) {}

  // Left by an exception, with collectives under way whose buffers are about to vanish: nobody may touch them any more.
  // Left by an exception otherwise: the others will hear of it from run_threads, with its text.
  ~ThreadCommunicator() override {
    const bool unwinding = std::uncaught_exceptions() > exceptions_;
    if (!unwinding)
      group_->leave(rank());
    else if (group_->busy(rank()))
      world_.abort("left by an exception", world_rank_);
  }

  std::string_view name() const override { return "threads"; }
  std::unique_ptr<Communicator> split(int color, int key) override;
  void abort(const std::string& reason) noexcept override { world_.abort(reason, world_rank_); }

 protected:
  Work submit(Collective c) override { return group_->submit(rank(), std::move(c)); }

 private:
  int world_rank_;
  int exceptions_ = std::uncaught_exceptions();
  uint64_t splits_ = 0;
  ThreadWorld& world_;
  std::shared_ptr<ThreadGroup> group_;
};

std::unique_ptr<Communicator> ThreadCommunicator::split(int color, int key) {
  int64_t own[2] = {color, key};
  std::vector<int64_t> all(2 * static_cast<size_t>(size()));
  all_gather(view_over(all.data(), DType::i64, {2 * size()}), view_over(own, DType::i64, {2})).wait();
  ++splits_;
  if (color < 0) return nullptr;
  std::vector<std::pair<int64_t, int>> members;  // key, rank
  for (size_t r = 0; 2 * r < all.size(); ++r)
    if (all[2 * r] == color) members.emplace_back(all[2 * r + 1], static_cast<int>(r));
  std::ranges::sort(members);
  const auto place = std::ranges::find(members, rank(), &std::pair<int64_t, int>::second) - members.begin();
  const int count = static_cast<int>(members.size());
  return std::make_unique<ThreadCommunicator>(static_cast<int>(place), count, world_rank_, world_,
                                              world_.group(group_->id(), splits_, color, count));
}

std::string text_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return {};
  }
}

// The culprit's error if somebody is to blame, else the first rank's.
[[noreturn]] void rethrow(const std::vector<std::exception_ptr>& errors, int culprit) {
  auto first =
      static_cast<size_t>(std::ranges::find_if(errors, [](const auto& e) { return e != nullptr; }) - errors.begin());
  if (culprit >= 0 && errors[static_cast<size_t>(culprit)]) first = static_cast<size_t>(culprit);
  const std::string text = text_of(errors[first]);
  if (text.empty()) std::rethrow_exception(errors[first]);  // not a std::exception: doctest's REQUIRE
  const bool on_all =
      errors.size() > 1 && std::ranges::all_of(errors, [&](const auto& e) { return e && text_of(e) == text; });
  throw Error(on_all ? text : str("rank ", first, ": ", text));
}

}  // namespace

void run_threads(int n, const std::function<void(Communicator&)>& f, const ThreadsOptions& options) {
  check(n >= 1, "run_threads: ", n, " ranks, expected at least 1");
  ThreadWorld world(options);
  std::vector<std::exception_ptr> errors(static_cast<size_t>(n));
  std::vector<std::thread> threads;
  threads.reserve(errors.size());
  const Context inherited = context();
  for (int rank = 0; rank < n; ++rank)
    threads.emplace_back([&, rank] {
      std::unique_ptr<Communicator> communicator;  // outlives the handler: its end must not come before the abort
      profile::name_thread(str("rank ", rank), rank);
      try {
        Context mine = inherited;
        mine.data_rank = rank;
        const ContextGuard guard(mine);
        communicator = std::make_unique<ThreadCommunicator>(rank, n, rank, world, world.group(0, 0, 0, n));
        f(*communicator);
      } catch (...) {
        errors[static_cast<size_t>(rank)] = std::current_exception();
        const std::string text = text_of(std::current_exception());
        world.abort(text.empty() ? "an exception" : text, rank);
      }
    });
  for (std::thread& t : threads) t.join();
  for (const std::exception_ptr& e : errors)
    if (e) rethrow(errors, world.culprit());
}

void run_threads(int n, const std::function<void(Communicator&)>& f, CommunicatorOptions options) {
  run_threads(n, f, ThreadsOptions{.communicator = options});
}

}  // namespace loom
