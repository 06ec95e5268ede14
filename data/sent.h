// Batches on their way to a device.
#pragma once

#include <exception>
#include <optional>
#include <utility>
#include <vector>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/stream.h>
#include <loom/tensor/nested.h>
#include <loom/tensor/pinned.h>
#include <loom/tensor/raw.h>

namespace loom::data {

// The batch with its tensors of the host in pinned memory; no device: as it is.
template <class Batch>
Batch pinned(Batch batch, std::optional<Device> device) {
  if (!device) return batch;
  return map_tensors(
      [&](const Tensor& x) {
        return x.defined() && x.device().kind == Device::cpu ? pin_memory(x.detach(), *device) : x;
      },
      std::move(batch));
}

// A copy of a batch in the device's copy stream, which runs beside the computation; the host waits for nothing.
template <class Batch>
class Sent {
 public:
  // What make() throws, receive() does.
  template <class Make>
  Sent(Device device, const Make& make) : device_(device) {
    try {
      start(make());
    } catch (...) {
      error_ = std::current_exception();
    }
  }

  // From here on the batch may be used in this thread's stream, which waits for it.
  Batch receive() {
    if (error_) std::rethrow_exception(error_);
    const Stream mine = current_stream(device_);
    mine.wait(ready_);
    for (void* const block : blocks_) accelerator(device_).use_by(block, mine.handle());
    return std::move(*batch_);
  }

 private:
  void start(Batch batch) {
    const Stream lane = stream(device_, Lane::copy);
    const StreamScope scope(lane);
    batch_.emplace(map_tensors([this](const Tensor& x) { return copied(x); }, pinned(std::move(batch), device_)));
    ready_ = lane.record();
  }
  // Tensors that are no longer on the host have been put where they are by the data set.
  Tensor copied(const Tensor& x) {
    if (!x.defined() || x.device().kind != Device::cpu) return x;
    Tensor y = raw::to_device(x, device_, true);
    if (y.numel() > 0) blocks_.push_back(y.storage()->data());
    return y;
  }

  Device device_;
  std::optional<Batch> batch_;
  std::vector<void*> blocks_;  // of the copy stream
  Event ready_;
  std::exception_ptr error_;
};

}  // namespace loom::data
