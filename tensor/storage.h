// The memory behind tensors. Views of one tensor share its Storage, and with it the version that counts in-place
// writes.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include <loom/accelerators/device.h>
#include <loom/tensor/pool.h>
#include <loom/tensor/ref.h>

namespace loom {

class Storage final : public Counted, public pool::Pooled {
 public:
  // Fresh memory from the device's caching allocator; contents are undefined.
  Storage(size_t bytes, Device device);
  // Memory that somebody else owns; `release` (may be empty) is called when the last view is gone.
  Storage(void* data, size_t bytes, Device device, std::function<void()> release);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  // The only way to the bytes: whoever takes a view comes through here.
  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

  // Counts in-place writes; a tensor saved for backward remembers it.
  uint64_t version() const { return version_.load(std::memory_order_relaxed); }
  void bump_version() { fetch_add(version_, uint64_t{1}, std::memory_order_relaxed); }

 private:
  void* data_;
  size_t bytes_;
  std::atomic<uint64_t> version_{0};
  std::unique_ptr<std::function<void()>> release_;
  Device device_;
  bool external_ = false;
};

void destroy(const Storage* storage) noexcept;
inline void drop_reference(const Storage& storage) noexcept {
  if (storage.drop()) destroy(&storage);
}

}  // namespace loom
