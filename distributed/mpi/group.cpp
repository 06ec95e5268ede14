#include <algorithm>
#include <utility>

#include <loom/distributed/mpi/group.h>

namespace loom::mpi {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto patience_with_own_error = 1s;     // for the others to leave too
constexpr auto patience_with_others_error = 2s;  // for the rank at fault to say first what happened
constexpr auto patience_for_answers = 500ms;
constexpr int looks_before_sleep = 2000;  // tens of microseconds: what the system takes to wake a thread

MPI_Comm returning_errors(MPI_Comm comm) {
  check_status(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  return comm;
}

std::vector<int> ranks_in_world(MPI_Comm comm) {
  MPI_Group group = MPI_GROUP_NULL, world = MPI_GROUP_NULL;
  check_status(MPI_Comm_group(comm, &group), "MPI_Comm_group");
  check_status(MPI_Comm_group(MPI_COMM_WORLD, &world), "MPI_Comm_group");
  int size = 0;
  check_status(MPI_Group_size(group, &size), "MPI_Group_size");
  std::vector<int> own(static_cast<size_t>(size)), out(own.size());
  for (int r = 0; r < size; ++r) own[static_cast<size_t>(r)] = r;
  check_status(MPI_Group_translate_ranks(group, size, own.data(), world, out.data()), "MPI_Group_translate_ranks");
  MPI_Group_free(&group);
  MPI_Group_free(&world);
  return out;
}

// Ranks that wait by looking take a core each, beside the threads that compute or instead of them.
bool crowded(const MpiOptions& options, const Host& host) {
  return (options.mode == MpiMode::threaded ? host.threads + host.ranks : host.ranks) > host.cores;
}

double seconds(std::chrono::milliseconds t) { return static_cast<double>(t.count()) / 1000; }

}  // namespace

std::shared_ptr<Group> Group::make(MPI_Comm comm, const MpiOptions& options, const Host& host) {
  auto group = std::make_shared<Group>(comm, options, host);
  add(group, options.communicator.timeout);
  return group;
}

Group::Group(MPI_Comm comm, const MpiOptions& options, const Host& host)
    : options_(options),
      host_(host),
      many_threads_(many_threads()),
      collectives_comm_(returning_errors(comm)),
      messages_comm_(duplicate(comm)),
      notes_comm_(duplicate(comm)),
      world_ranks_(ranks_in_world(comm)),
      transport_(comm, options.chunk_elements),
      window_(on_one_host(comm, options.ranks_per_host) ? Window::make(comm, crowded(options, host)) : nullptr),
      notes_(notes_comm_, recorder_),
      messages_(std::make_shared<Messages>(messages_comm_, notes_comm_, options.chunk_elements,
                                           many_threads_ && options.mode == MpiMode::threaded)) {
  if (!many_threads_) messages_->call_while_waiting([this] { watch_messages(); });  // the watchdog must not call MPI
  if (options.mode == MpiMode::threaded)
    thread_ = std::make_unique<TaskThread>(crowded(options, host) ? 0 : looks_before_sleep, "collectives");
}

Work Group::submit(Collective c) {
  if (c.between_two()) return messages_->post(c);
  if (thread_) return thread_->push([this, c = std::move(c)] { run(c); });
  run(c);
  return {};
}

void Group::run(const Collective& c) {
  if (broken_) fail(to_string(c), ": an earlier collective of this group failed");
  const profile::Range range(Activity::collective,
                             [&] { return description(c, static_cast<int>(world_ranks_.size())); });
  recorder_.begin(fingerprint(c));
  try {
    if (!window_ || !window_->run(c)) transport_.run(c);
  } catch (const std::exception& e) {
    broken_ = true;
    recorder_.end();
    fail(to_string(c), ": ", e.what());
  }
  recorder_.end();
}

void Group::in_order(const std::function<void()>& f) {
  if (thread_)
    thread_->push(f).wait();
  else
    f();
}

std::shared_ptr<void> Group::allocate(size_t bytes) { return window_ ? window_->allocate(bytes) : nullptr; }

void Group::leave(bool by_exception) {
  if (released_ || !running()) return;
  if (!by_exception && !broken_) {
    if (thread_) thread_->wait_until_idle();
    for (Backoff b; !messages_->idle(); b.pause()) watch_messages();
    say_goodbye();
    return await_goodbyes();
  }
  tell_goodbye(true);
  for (const auto until = Clock::now() + patience_with_own_error; Clock::now() < until;) {
    notes_.poll();
    messages_->progress();
    if (notes_.all_left() && idle()) return release();
    std::this_thread::sleep_for(1ms);
  }
  remove(this);
  if (thread_) thread_->detach();
  abandon(shared_from_this());
}

void Group::say_goodbye() {
  if (!released_ && !said_goodbye_.exchange(true)) tell_goodbye(false);
}

void Group::tell_goodbye(bool failed) {
  notes_.say_goodbye(failed, [this](int rank) { return messages_->traffic_with(rank); });
}

void Group::await_goodbyes() {
  if (released_) return;
  const auto until = Clock::now() + options_.communicator.timeout;
  for (Backoff b; !notes_.all_left() || !idle(); b.pause()) {
    watch_messages();
    if (Clock::now() > until)
      abort_job(str("timeout after ", seconds(options_.communicator.timeout),
                    " s at the end: ", names_of(notes_.staying()), " has not come"),
                42);
  }
  release();
}

// All ranks have said goodbye: nobody sends anything any more.
void Group::release() {
  const std::shared_ptr<Group> alive = shared_from_this();
  released_ = true;
  remove(this);
  thread_.reset();
  notes_.finish_sends();
  messages_.reset();
  window_.reset();
  for (MPI_Comm* comm : {&notes_comm_, &messages_comm_, &collectives_comm_}) free(*comm);
}

void Group::watch() {
  if (!running()) return;
  if (many_threads_) watch_messages();
  const FlightRecorder::Snapshot now = recorder_.snapshot();
  if (now.running) watch_leavers(now);
  if (std::exchange(seen_, now.started) != now.started) seen_since_ = Clock::now();
  const auto limit = Clock::now() - options_.communicator.timeout;
  if (now.running && seen_since_ < limit) time_out(now.current);
  if (const auto oldest = messages_->oldest(); oldest && oldest->since < limit)
    time_out(fingerprint(oldest->collective));
}

void Group::watch_leavers(const FlightRecorder::Snapshot& now) const {
  for (int r = 0; r < notes_.size(); ++r) {
    const auto left = notes_.goodbye_of(r);
    if (!left || now.completed() < left->note.completed) continue;  // it took part in this one
    waits_for_leaver(r, *left, to_string(now.current));
  }
}

void Group::watch_messages() {
  notes_.poll();
  messages_->progress();
  if (messages_->idle()) return;
  for (int r = 0; r < notes_.size(); ++r) {
    const auto left = notes_.goodbye_of(r);
    if (!left) continue;
    const auto vain = messages_->waiting_in_vain(r, left->note.failed != 0 ? std::vector<Traffic>{} : left->traffic);
    if (vain) waits_for_leaver(r, *left, to_string(*vain));
  }
}

void Group::waits_for_leaver(int rank, const Notes::Received& goodbye, const std::string& in) const {
  const bool failed = goodbye.note.failed != 0;
  if (failed && Clock::now() < goodbye.when + patience_with_others_error) return;
  abort_job(str(names_of({rank}), " has ended", failed ? " by an error" : "", ", this rank waits for it in ", in));
}

void Group::time_out(const Fingerprint& f) {
  const FlightRecorder::Snapshot own = recorder_.snapshot();
  std::string text = str("timeout after ", seconds(options_.communicator.timeout), " s in ", to_string(f));
  if (f.kind != Collective::send && f.kind != Collective::recv && many_threads_) text += who_is_missing(own);
  abort_job(str(text, "\n  last collectives: ", recorder_.last()), 42);
}

// Asks the others' watchdogs, which answer whatever their ranks are doing.
std::string Group::who_is_missing(const FlightRecorder::Snapshot& own) {
  const std::vector<int> others = notes_.staying();
  notes_.ask_all();
  for (const auto until = Clock::now() + patience_for_answers; Clock::now() < until; std::this_thread::sleep_for(2ms)) {
    notes_.poll();
    if (std::ranges::all_of(others, [&](int r) { return notes_.answer_of(r).has_value(); })) break;
  }
  std::string out;
  for (const int r : others) {
    const auto answer = notes_.answer_of(r);
    const std::string name = names_of({r});
    if (!answer) {
      out += str("; ", name, " does not answer");
      continue;
    }
    const Note& note = answer->note;
    const std::string current = to_string(note.current);
    if (note.started < own.started) out += str("; ", name, " is missing");
    if (note.started < own.started && note.started > 0)
      out += str(note.running != 0 ? " (still in " : " (its last: ", current, ")");
    if (note.started == own.started && note.current != own.current) out += str("; ", name, " is in ", current);
  }
  return out;
}

std::string Group::names_of(const std::vector<int>& ranks) const {
  std::string out = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < ranks.size(); ++i) out += str(i == 0 ? "" : ", ", world_ranks_[static_cast<size_t>(ranks[i])]);
  return out;
}

}  // namespace loom::mpi
