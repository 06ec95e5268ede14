#include <loom/tensor/pool.h>

#include <sanitizer/asan_interface.h>  // its macros are empty in other builds

#include <new>

namespace loom::pool {

namespace {

constexpr size_t granule = 32, classes = 25;    // objects of up to 768 bytes; larger ones go to the system
constexpr size_t most_held = size_t{16} << 20;  // freed bytes that a thread keeps

struct Free {
  Free* next;
};

// What this thread has freed, by size. Trivial, so that it costs no question whether it has been made.
struct Lists {
  Free* heads[classes];
  size_t held;  // bytes in all lists; as many as may be, once the thread has begun to end
  bool given_back_at_exit;
};
[[gnu::tls_model("initial-exec")]] thread_local constinit Lists lists{};

struct AtExit {
  ~AtExit() {
    lists.held = most_held;
    for (size_t n = 0; n < classes; ++n)
      while (Free* const head = lists.heads[n]) {
        ASAN_UNPOISON_MEMORY_REGION(head, n * granule);
        lists.heads[n] = head->next;
        ::operator delete(head);
      }
  }
};

void give_back_at_exit() {
  thread_local const AtExit at_exit;
  static_cast<void>(&at_exit);
  lists.given_back_at_exit = true;
}

}  // namespace

void* take(size_t bytes) {
  const size_t n = (bytes + granule - 1) / granule, rounded = n * granule;
  Free* const head = n < classes ? lists.heads[n] : nullptr;
  if (head == nullptr) [[unlikely]]
    return ::operator new(rounded);
  ASAN_UNPOISON_MEMORY_REGION(head, rounded);
  lists.heads[n] = head->next;
  lists.held -= rounded;
  return head;
}

void give(void* memory, size_t bytes) noexcept {
  const size_t n = (bytes + granule - 1) / granule, rounded = n * granule;
  if (n >= classes || lists.held + rounded > most_held) [[unlikely]] {
    ::operator delete(memory);
    return;
  }
  if (!lists.given_back_at_exit) [[unlikely]]
    give_back_at_exit();
  Free* const head = static_cast<Free*>(memory);
  head->next = lists.heads[n];
  lists.heads[n] = head;
  lists.held += rounded;
  ASAN_POISON_MEMORY_REGION(head, rounded);
}

}  // namespace loom::pool
