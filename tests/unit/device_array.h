// SPDX-License-Identifier: Apache-2.0
// An array of a test on a GPU: its memory there, in the same layout.
#pragma once

#include <loom/accelerators/accelerator.h>

#include "kernel_test.h"

namespace kernel_test {

class DeviceArray {
 public:
  explicit DeviceArray(const Array& from, Device device = Device::cuda)
      : accelerator_(accelerator(device)), block_(accelerator_.allocate(from.memory.size())), view_(from.view) {
    view_.device = device;
    view_.data = static_cast<std::byte*>(block_) + (static_cast<std::byte*>(from.view.data) - from.memory.data());
    bytes_ = static_cast<int64_t>(from.memory.size());
    accelerator_.copy(block(), host(from));
  }
  ~DeviceArray() { accelerator_.release(block_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  operator const View&() const { return view_; }  // NOLINT: an array is passed as its view
  // All of the memory, gaps included.
  void fetch(Array& to) const { accelerator_.copy(host(to), block()); }

 private:
  View block() const { return view_over(block_, u8, {bytes_}, view_.device); }
  View host(const Array& a) const {
    return view_over(const_cast<std::byte*>(a.memory.data()), u8, {bytes_});  // NOLINT: copied from, or the caller's
  }

  Accelerator& accelerator_;
  void* block_;
  View view_;
  int64_t bytes_ = 0;
};

}  // namespace kernel_test
