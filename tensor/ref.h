// Handles on objects that count their own references: 8 bytes, no control block. Counts are atomic once the process has
// a second thread.
#pragma once

#include <sys/single_threaded.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace loom {

// Adds to a counter that other threads may use; a locked instruction only where there are any.
template <class T>
T fetch_add(std::atomic<T>& counter, T n, std::memory_order order) {
  if (!__libc_single_threaded) return counter.fetch_add(n, order);
  const T before = counter.load(std::memory_order_relaxed);
  counter.store(before + n, std::memory_order_relaxed);
  return before;
}

class Counted {
 public:
  Counted() = default;
  Counted(const Counted&) {}  // references are to an object, not to its value
  Counted& operator=(const Counted&) { return *this; }
  uint32_t references() const { return references_.load(std::memory_order_acquire); }

  friend void add_reference(const Counted& x) noexcept { fetch_add(x.references_, 1u, std::memory_order_relaxed); }
  // True when it was the last. Whoever holds the only reference is alone with it: nobody could take another.
  bool drop() const noexcept {
    return references() == 1 || fetch_add(references_, ~0u, std::memory_order_acq_rel) == 1;
  }

 protected:
  ~Counted() = default;

 private:
  mutable std::atomic<uint32_t> references_{0};
};

// A shared handle. T may be incomplete here; add_reference(const T&) and drop_reference(const T&), which destroys with
// the last reference, are found by its namespace.
template <class T>
class Ref {
 public:
  Ref() = default;
  Ref(std::nullptr_t) {}  // NOLINT: as a pointer
  explicit Ref(T* object) : object_(object) {
    if (object_) add_reference(*object_);
  }
  Ref(const Ref& other) : Ref(other.object_) {}
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(const Ref& other) {  // NOLINT(bugprone-unhandled-self-assignment): the copy comes first
    Ref(other).swap(*this);
    return *this;
  }
  Ref& operator=(Ref&& other) noexcept {
    Ref(std::move(other)).swap(*this);
    return *this;
  }
  ~Ref() {
    if (object_) drop_reference(*object_);
  }

  T* get() const { return object_; }
  T& operator*() const { return *object_; }
  T* operator->() const { return object_; }
  explicit operator bool() const { return object_ != nullptr; }
  bool operator==(const Ref&) const = default;
  void swap(Ref& other) noexcept { std::swap(object_, other.object_); }

 private:
  T* object_ = nullptr;
};

template <class T, class... Args>
Ref<T> make_ref(Args&&... args) {
  return Ref<T>(new T(std::forward<Args>(args)...));
}

}  // namespace loom
