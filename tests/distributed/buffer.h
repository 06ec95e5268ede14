// SPDX-License-Identifier: Apache-2.0
// Memory with test values of any dtype.
#pragma once

#include <cstring>
#include <vector>

#include <loom/accelerators/view.h>
#include <loom/tensor/create.h>

// Starts as NaN (or -1): what is never written shows. Its view lies on the device of new tensors; what a collective has
// written there is seen once its work has been waited for.
struct Buffer {
  Buffer(loom::DType dtype, int64_t count)
      : dtype(dtype), count(count), memory(static_cast<size_t>(count) * loom::item_size(dtype), std::byte{0xff}) {}
  Buffer(const Buffer& other) : dtype(other.dtype), count(other.count), memory(other.host()) {}
  Buffer(Buffer&&) = default;
  Buffer& operator=(Buffer&&) = default;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() = default;

  loom::View view() { return view(0, count); }
  // Of the elements from `begin` on.
  loom::View view(int64_t begin, int64_t n) {
    const size_t at = static_cast<size_t>(begin) * loom::item_size(dtype);
    if (loom::default_device().kind == loom::Device::cpu || count == 0)
      return loom::view_over(memory.data() + at, dtype, {n}, loom::default_device());
    if (!device.defined()) device = on_host().to(loom::default_device());
    return loom::view_over(device.data<uint8_t>() + at, dtype, {n}, device.device());
  }
  bool operator==(const Buffer& other) const { return dtype == other.dtype && host() == other.host(); }

  template <class T>
  T* as() {
    host();
    device = {};
    return reinterpret_cast<T*>(memory.data());
  }
  void set(int64_t i, double value) {
    loom::with_type(dtype, [&]<class T> { as<T>()[i] = static_cast<T>(static_cast<loom::compute_type<T>>(value)); });
  }
  double get(int64_t i) const {
    return loom::with_type(dtype, [&]<class T> {
      const T value = reinterpret_cast<const T*>(host().data())[i];
      return static_cast<double>(static_cast<loom::compute_type<T>>(value));
    });
  }
  // A copy of the elements from `begin` on.
  Buffer slice(int64_t begin, int64_t n) const {
    Buffer out(dtype, n);
    if (n > 0)
      std::memcpy(out.memory.data(), host().data() + static_cast<size_t>(begin) * loom::item_size(dtype),
                  out.memory.size());
    return out;
  }

  loom::DType dtype;
  int64_t count;
  mutable std::vector<std::byte> memory;
  loom::Tensor device = {};  // bytes

 private:
  loom::Tensor on_host() const {
    return loom::from_blob(memory.data(), {static_cast<int64_t>(memory.size())}, loom::u8);
  }
  const std::vector<std::byte>& host() const {
    if (device.defined()) on_host().copy_(device);
    return memory;
  }
};

// Rank r's element i: magnitudes vary, so that the order of a sum shows in its last bits.
inline double test_value(loom::DType dtype, int rank, int64_t i) {
  uint64_t h = (static_cast<uint64_t>(rank) << 40) + static_cast<uint64_t>(i) + 1;
  h = (h ^ (h >> 31)) * 0x9e3779b97f4a7c15u;
  h = (h ^ (h >> 29)) * 0xbf58476d1ce4e5b9u;
  if (dtype == loom::DType::boolean) return static_cast<double>(h >> 63);
  if (loom::is_integral(dtype)) return static_cast<double>(h >> 57);
  return (static_cast<double>(h >> 40) * 0x1p-24 - 0.5) * static_cast<double>(1 << (h % 6));
}

inline Buffer test_values(loom::DType dtype, int rank, int64_t count, int64_t begin = 0) {
  Buffer out(dtype, count);
  for (int64_t i = 0; i < count; ++i) out.set(i, test_value(dtype, rank, begin + i));
  return out;
}
