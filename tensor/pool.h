// Memory for the many small objects behind an op (bodies, storages, nodes, edges): what this thread has freed before is
// handed out again, so that an op calls malloc only while the graph is larger than it has ever been.
#pragma once

#include <cstddef>

namespace loom::pool {

void* take(size_t bytes);
void give(void* memory, size_t bytes) noexcept;

// Objects of derived classes come from the pool; one with a virtual destructor may be deleted through its base.
struct Pooled {
  static void* operator new(size_t bytes) { return take(bytes); }
  static void operator delete(void* memory, size_t bytes) noexcept { give(memory, bytes); }
};

// For containers of a few elements.
template <class T>
struct Allocator {
  using value_type = T;
  Allocator() = default;
  template <class U>
  Allocator(const Allocator<U>&) {}  // NOLINT: an allocator of another type is as good
  T* allocate(size_t n) { return static_cast<T*>(take(n * sizeof(T))); }
  void deallocate(T* memory, size_t n) noexcept { give(memory, n * sizeof(T)); }
  bool operator==(const Allocator&) const { return true; }
};

}  // namespace loom::pool
