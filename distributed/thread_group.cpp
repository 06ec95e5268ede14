#include <algorithm>
#include <cstring>

#include <loom/accelerators/host_clock.h>
#include <loom/accelerators/recording.h>
#include <loom/distributed/reduction.h>
#include <loom/distributed/thread_group.h>

namespace loom {
namespace {

void copy_bytes(void* to, const void* from, size_t bytes) {
  if (bytes > 0 && to != from) std::memmove(to, from, bytes);
}

std::byte* at(const View& v, int64_t element) {
  return v.as<std::byte>() + static_cast<size_t>(element) * item_size(v.dtype);
}

void reduce(std::span<Collective* const> ranks) {
  const Collective& c = *ranks[0];
  std::vector<const void*> inputs;
  if (c.kind == Collective::all_reduce) {
    std::vector<void*> outputs;
    for (const Collective* r : ranks) inputs.push_back(r->out.data), outputs.push_back(r->out.data);
    return reduce_in_rank_order(c.op, c.out.dtype, c.out.numel(), inputs, outputs);
  }
  const int64_t n = c.out.numel();
  for (size_t to = 0; to < ranks.size(); ++to) {
    inputs.clear();
    for (const Collective* r : ranks) inputs.push_back(at(r->in, static_cast<int64_t>(to) * n));
    void* const output = ranks[to]->out.data;
    reduce_in_rank_order(c.op, c.out.dtype, n, inputs, {&output, 1});
  }
}

void gather_to(const View& out, std::span<Collective* const> ranks) {
  int64_t begin = 0;
  for (const Collective* r : ranks) {
    copy_bytes(at(out, begin), r->in.data, r->in.bytes());
    begin += r->in.numel();
  }
}

void exchange_blocks(std::span<Collective* const> ranks) {
  const int64_t n = ranks[0]->in.numel() / static_cast<int64_t>(ranks.size());
  for (size_t to = 0; to < ranks.size(); ++to)
    for (size_t from = 0; from < ranks.size(); ++from)
      copy_bytes(at(ranks[to]->out, static_cast<int64_t>(from) * n), at(ranks[from]->in, static_cast<int64_t>(to) * n),
                 static_cast<size_t>(n) * item_size(ranks[to]->out.dtype));
}

// All ranks' buffers are at hand: the collective is a few copies.
void execute(std::span<Collective* const> ranks) {
  const Collective& c = *ranks[0];
  const Collective& root = *ranks[static_cast<size_t>(c.peer)];
  switch (c.kind) {
    case Collective::all_reduce:
    case Collective::reduce_scatter:
      return reduce(ranks);
    case Collective::all_gather:
      for (const Collective* r : ranks) gather_to(r->out, ranks);
      return;
    case Collective::gather:
      return gather_to(root.out, ranks);
    case Collective::broadcast:
      for (const Collective* r : ranks) copy_bytes(r->out.data, root.out.data, c.out.bytes());
      return;
    case Collective::scatter:
      for (size_t r = 0; r < ranks.size(); ++r)
        copy_bytes(ranks[r]->out.data, at(root.in, static_cast<int64_t>(r) * c.out.numel()), c.out.bytes());
      return;
    case Collective::all_to_all:
      return exchange_blocks(ranks);
    default:
      return;
  }
}

std::string names_of(const std::vector<int>& ranks) {
  std::string out = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < ranks.size(); ++i) out += str(i == 0 ? "" : ", ", ranks[i]);
  return out;
}

}  // namespace

ThreadGroup::ThreadGroup(uint64_t id, int size, ThreadWorld& world)
    : id_(id), size_(size), world_(world), issued_(static_cast<size_t>(size)), left_(static_cast<size_t>(size)) {
  thread_ = std::thread([this] { run(); });
}

ThreadGroup::~ThreadGroup() {
  world_.forget(this);
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

ThreadGroup::Entry ThreadGroup::entry_of(int rank, Collective c) {
  Entry entry{std::move(c), std::make_shared<Pending>(), rank};
  if (!profile::observed()) return entry;
  entry.since = host_nanoseconds();
  entry.issuer = profile::rank();
  return entry;
}

// Observers, of what has been done for a rank, on a track of the rank's.
void ThreadGroup::tell(const Entry& entry, int size, int64_t not_before) const {
  if (!profile::observed() || entry.since == 0) return;
  const char* const track = entry.collective.between_two() ? "messages" : "collectives";
  profile::add_span(Activity::collective, description(entry.collective, size), std::max(entry.since, not_before),
                    host_nanoseconds(), {track, entry.issuer});
}

Work ThreadGroup::submit(int rank, Collective c) {
  Entry entry = entry_of(rank, std::move(c));
  Work work(entry.work);
  if (entry.collective.between_two()) {
    submit_message(std::move(entry));
    return work;
  }
  const std::lock_guard lock(mutex_);
  check(ended_.empty(), ended_);
  const auto index = static_cast<size_t>(issued_[static_cast<size_t>(rank)]++ - executed_);
  if (index == rounds_.size()) rounds_.push_back({{}, Clock::now()});
  rounds_[index].entries.push_back(std::move(entry));
  changed_.notify_all();
  return work;
}

// Whoever comes second copies.
void ThreadGroup::submit_message(Entry entry) {
  const Collective& c = entry.collective;
  std::unique_lock lock(mutex_);
  check(ended_.empty(), ended_);
  const auto found = std::ranges::find_if(messages_, [&](const Message& m) {
    const Collective& o = m.entry.collective;
    return o.kind != c.kind && o.tag == c.tag && m.entry.rank == c.peer && o.peer == entry.rank;
  });
  if (found == messages_.end()) {
    messages_.push_back({std::move(entry), Clock::now()});
    changed_.notify_all();
    return;
  }
  const Entry other = std::move(found->entry);
  messages_.erase(found);
  lock.unlock();
  const Entry& to = c.kind == Collective::recv ? entry : other;
  const Entry& from = c.kind == Collective::recv ? other : entry;
  const View &out = to.collective.out, &in = from.collective.in;
  if (out.dtype == in.dtype && out.numel() == in.numel()) {
    copy_bytes(out.data, in.data, in.bytes());
    tell(to, 2, 0);
    tell(from, 2, 0);
    to.work->finish();
    from.work->finish();
  } else {
    const std::string error = unexpected_message(to.collective, to.rank, in.dtype, in.numel());
    to.work->fail(error);
    from.work->fail(error);
  }
  lock.lock();
  changed_.notify_all();
}

bool ThreadGroup::waits_for_nothing(int rank) const {
  return issued_[static_cast<size_t>(rank)] <= executed_ &&
         std::ranges::none_of(messages_, [&](const Message& m) { return m.entry.rank == rank; });
}

bool ThreadGroup::busy(int rank) const {
  const std::lock_guard lock(mutex_);
  return ended_.empty() && !waits_for_nothing(rank);
}

void ThreadGroup::leave(int rank) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !ended_.empty() || waits_for_nothing(rank); });
  left_[static_cast<size_t>(rank)] = true;
  changed_.notify_all();
}

void ThreadGroup::end(const std::string& error) {
  const std::lock_guard lock(mutex_);
  ended_ = error;
  for (const Round& round : rounds_)
    for (const Entry& e : round.entries) e.work->fail(error);
  for (const Message& m : messages_) m.entry.work->fail(error);
  rounds_.clear();
  messages_.clear();
  changed_.notify_all();
}

void ThreadGroup::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (ended_.empty() && front_ready()) {
      run_front(lock);
      continue;
    }
    std::string error = deserted();
    if (error.empty()) error = overdue();
    if (!error.empty()) {
      lock.unlock();
      world_.abort(error);
      lock.lock();
      continue;
    }
    // Not wait_until(max()): adding to it overflows in some libraries.
    if (const Clock::time_point until = deadline(); until == Clock::time_point::max())
      changed_.wait(lock);
    else
      changed_.wait_until(lock, until);
  }
}

void ThreadGroup::run_front(std::unique_lock<std::mutex>& lock) {
  if (world_.options.delay.count() > 0) {
    changed_.wait_for(lock, world_.options.delay, [&] { return stopping_ || !ended_.empty(); });
    if (!ended_.empty()) return;
  }
  Round round = std::move(rounds_.front());
  lock.unlock();
  std::ranges::sort(round.entries, {}, &Entry::rank);
  std::vector<Collective*> ranks;
  std::vector<Fingerprint> fingerprints;
  for (Entry& e : round.entries) {
    ranks.push_back(&e.collective);
    fingerprints.push_back(fingerprint(e.collective));
  }
  const std::string error = mismatch(fingerprints);
  if (error.empty()) execute(ranks);
  const int64_t before = std::chrono::nanoseconds(last_executed_.time_since_epoch()).count();
  for (const Entry& e : round.entries) tell(e, size_, before);
  lock.lock();
  if (!rounds_.empty()) rounds_.pop_front();  // end() may have emptied it
  ++executed_;
  last_executed_ = Clock::now();
  for (const Entry& e : round.entries) error.empty() ? e.work->finish() : e.work->fail(error);
  changed_.notify_all();
}

std::vector<int> ThreadGroup::missing() const {
  std::vector<int> out;
  for (int r = 0; r < size_; ++r)
    if (issued_[static_cast<size_t>(r)] <= executed_) out.push_back(r);
  return out;
}

ThreadGroup::Clock::time_point ThreadGroup::deadline() const {
  auto since = Clock::time_point::max();
  if (!rounds_.empty()) since = std::max(rounds_.front().since, last_executed_);
  if (!messages_.empty()) since = std::min(since, messages_.front().since);
  return since == Clock::time_point::max() ? since : since + world_.options.communicator.timeout;
}

std::string ThreadGroup::overdue() const {
  if (Clock::now() < deadline()) return {};
  const double seconds = static_cast<double>(world_.options.communicator.timeout.count()) / 1000;
  const std::string start = str("timeout after ", seconds, " s in ");
  const auto limit = Clock::now() - world_.options.communicator.timeout;
  if (!messages_.empty() && messages_.front().since <= limit) {
    const Entry& e = messages_.front().entry;
    return str(start, to_string(e.collective), " on rank ", e.rank, ": rank ", e.collective.peer, " is missing");
  }
  const std::vector<int> ranks = missing();
  return str(start, to_string(rounds_.front().entries.front().collective), ": ", names_of(ranks),
             ranks.size() == 1 ? " is missing" : " are missing");
}

std::string ThreadGroup::deserted() const {
  for (const Message& m : messages_)
    if (left_[static_cast<size_t>(m.entry.collective.peer)])
      return str("rank ", m.entry.collective.peer, " has left, rank ", m.entry.rank, " is in ",
                 to_string(m.entry.collective));
  if (rounds_.empty()) return {};
  const Entry& waiting = rounds_.front().entries.front();
  for (const int r : missing())
    if (left_[static_cast<size_t>(r)])
      return str("rank ", r, " has left, rank ", waiting.rank, " is in ", to_string(waiting.collective));
  return {};
}

}  // namespace loom
