// How the ranks of a window meet and wait, and the memory that they share.
#include <algorithm>
#include <chrono>
#include <new>
#include <thread>

#include <loom/distributed/mpi/window.h>
#include <loom/distributed/mpi/window_layout.h>
#include <loom/distributed/spin.h>

namespace loom::mpi {
namespace {

// Looks again and again, ever less often: other ranks may need this core, or be busy for long.
class Patience {
 public:
  Patience(MPI_Comm comm, bool crowded) : comm_(comm), looks_(crowded ? spins : 0) {}
  void pause() {
    if (++looks_ < spins) return rest(looks_);
    if (looks_ % 16 == 0) keep_mpi_moving();
    if (looks_ < spins + yields) return std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }

 private:
  static constexpr int spins = 2000, yields = 2000;  // tens of microseconds, then about a millisecond

  // A rank that waits here may owe another the rest of a message.
  void keep_mpi_moving() const {
    int found = 0;
    MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm_, &found, MPI_STATUS_IGNORE);
  }
  MPI_Comm comm_;
  int looks_;
};

}  // namespace

std::unique_ptr<Window> Window::make(MPI_Comm comm, bool crowded) {
  int rank = 0, size = 1;
  check_status(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
  check_status(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  if (size == 1) return nullptr;
  auto control = SharedSegment::make(comm, layout::bytes);
  if (!control) return nullptr;
  return std::unique_ptr<Window>(new Window(comm, std::move(control), rank, size, crowded));
}

// Steps start at zero, as the memory does: other ranks may look before this one is here.
Window::Window(MPI_Comm comm, std::shared_ptr<SharedSegment> control, int rank, int size, bool crowded)
    : comm_(comm), control_(std::move(control)), rank_(rank), size_(size), crowded_(crowded) {
  static_assert(sizeof(Post) == layout::post && std::atomic<uint64_t>::is_always_lock_free);
  inputs_.reserve(static_cast<size_t>(size));
  outputs_.reserve(static_cast<size_t>(size));
}

uint64_t Window::advance() {
  step_of(rank_).store(++step_, std::memory_order_release);
  return step_;
}

void Window::wait_until(const std::atomic<uint64_t>& theirs, uint64_t step) const {
  if (theirs.load(std::memory_order_acquire) >= step) return;
  for (Patience p(comm_, crowded_); theirs.load(std::memory_order_acquire) < step;) p.pause();
}

void Window::wait_for(uint64_t step) const {
  for (int r = 0; r < size_; ++r)
    if (r != rank_) wait_until(step_of(r), step);
}

// Posts and slots are used in turn by even and odd rounds. Who is in round n + 2 has seen all ranks in n + 1, hence
// done with n.
void Window::meet(const Collective& c, Place place) {
  const Fingerprint own = fingerprint(c);
  Post& mine = post(rank_);
  mine.collective = own;
  mine.place = place;
  mine.step.store(++step_, std::memory_order_release);
  bool equal = true;
  for (int r = 0; r < size_; ++r) {
    if (r == rank_) continue;
    wait_until(post(r).step, step_);
    equal = equal && post(r).collective == own;
  }
  if (equal) return;
  std::vector<Fingerprint> all;
  all.reserve(static_cast<size_t>(size_));
  for (int r = 0; r < size_; ++r) all.push_back(post(r).collective);
  fail(mismatch(all));
}

std::atomic<uint64_t>& Window::step_of(int rank) const {
  return *reinterpret_cast<std::atomic<uint64_t>*>(control_->part(rank));
}
Window::Post& Window::post(int rank) const {
  return *reinterpret_cast<Post*>(control_->part(rank) + layout::posts + (layout::post + layout::slot) * (round_ % 2));
}
std::byte* Window::slot(int rank) const { return reinterpret_cast<std::byte*>(&post(rank)) + layout::post; }

// The ring goes on from one collective to the next.
size_t Window::box(int64_t piece) const {
  return layout::box * ((pieces_ + static_cast<uint64_t>(piece)) % layout::boxes);
}
std::byte* Window::inbox(int rank, int64_t piece) const { return control_->part(rank) + layout::inboxes + box(piece); }
std::byte* Window::outbox(int rank, int64_t piece) const {
  return control_->part(rank) + layout::outboxes + box(piece);
}

std::shared_ptr<void> Window::allocate(size_t bytes) {
  std::erase_if(lent_, [](const Lent& l) { return l.memory->dropped_by_all(); });
  auto memory = SharedSegment::make(comm_, bytes);
  if (!memory) return nullptr;
  lent_.push_back({numbers_++, memory});
  void* const own = memory->part(rank_);
  return {own, [memory = std::move(memory)](void*) { memory->drop(); }};
}

// A segment stays mapped until all ranks have dropped it: one that still reduces in it must be understood by all.
Window::Place Window::place_of(const View& v) const {
  const auto* const data = v.as<std::byte>();
  for (const Lent& l : lent_) {
    const std::byte* const part = l.memory->part(rank_);
    if (data >= part && data + v.bytes() <= part + l.memory->bytes())
      return {l.number, static_cast<size_t>(data - part)};
  }
  return {};
}

std::byte* Window::resolve(int rank) const {
  const Place& place = post(rank).place;
  for (const Lent& l : lent_)
    if (l.number == place.segment) return l.memory->part(rank) + place.offset;
  return nullptr;
}

bool Window::all_in_place() const {
  for (int r = 0; r < size_; ++r)
    if (post(r).place.segment < 0) return false;
  return true;
}

}  // namespace loom::mpi
