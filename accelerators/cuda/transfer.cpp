// What goes to the GPU is copied to pinned memory first, by the host, unless it lies there: then the caller may write
// to it at once, and nobody has waited for the device. What comes from it is waited for, as the caller reads it next.
#include <loom/accelerators/cuda/transfer.h>

#include <algorithm>
#include <cstring>
#include <deque>

#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/driver_events.h>
#include <loom/accelerators/cuda/pinned.h>
#include <loom/accelerators/sync_debug.h>

namespace loom {

namespace cuda {

namespace {

// Pieces that the host fills while the device takes the ones before; as many as may lie there at a time.
constexpr size_t piece = size_t{4} << 20, most_pieces = 16;

void copy_async(void* to, const void* from, size_t bytes, cudaStream_t stream) {
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream), "copy between devices");
}

class PinnedBlock {
 public:
  explicit PinnedBlock(size_t bytes) : memory_(pinned_memory().allocate(bytes)) {}
  ~PinnedBlock() { pinned_memory().release(memory_); }
  PinnedBlock(const PinnedBlock&) = delete;
  PinnedBlock& operator=(const PinnedBlock&) = delete;
  void* memory() const { return memory_; }

 private:
  void* memory_;
};

// A captured copy would read the block at every replay, long after others have written to it.
void stage(void* to, const char* from, size_t bytes, cudaStream_t stream) {
  check(!is_capturing(stream), "copy to a GPU: memory of the host that is not pinned cannot be part of a captured ",
        "graph; copy before the capture, or from a tensor of pin_memory with non_blocking=true");
  std::deque<std::shared_ptr<void>> started;
  for (size_t at = 0; at < bytes; at += piece) {
    if (started.size() == most_pieces) {
      note_host_wait("room in pinned memory for a large copy to a GPU");
      check_cuda(cudaEventSynchronize(static_cast<cudaEvent_t>(started.front().get())), "copy between devices");
      started.pop_front();
    }
    const size_t count = std::min(piece, bytes - at);
    const PinnedBlock block(count);
    std::memcpy(block.memory(), from + at, count);
    copy_async(static_cast<char*>(to) + at, block.memory(), count, stream);
    pinned_memory().use_until(block.memory(), stream, record_event(stream));
    if (bytes <= piece * most_pieces) continue;
    started.push_back(new_event());
    check_cuda(cudaEventRecord(static_cast<cudaEvent_t>(started.back().get()), stream), "copy between devices");
  }
}

// Each GPU's stream waits for the other's: y's for what is to be copied, x's until that is done, so that x's memory is
// not used for something else before.
void between_gpus(const View& y, const View& x) {
  Gpu &to = gpu(y.device.index), &from = gpu(x.device.index);
  const auto follow = [](const Gpu& second, const Gpu& first) {
    const std::shared_ptr<void> event = [&] {
      const DeviceScope scope(first.index());
      std::shared_ptr<void> made = new_event();
      check_cuda(cudaEventRecord(static_cast<cudaEvent_t>(made.get()), first.stream()), "copy between devices");
      return made;
    }();
    const DeviceScope scope(second.index());
    check_cuda(cudaStreamWaitEvent(second.stream(), static_cast<cudaEvent_t>(event.get())), "copy between devices");
  };
  follow(to, from);
  {
    const DeviceScope scope(to.index());
    copy_async(y.data, x.data, y.bytes(), to.stream());
  }
  follow(from, to);
}

}  // namespace

void transfer(Gpu& gpu, const View& y, const View& x, bool in_stream) {
  if (y.device.kind == x.device.kind) return between_gpus(y, x);
  const DeviceScope scope(gpu.index());
  const cudaStream_t stream = gpu.stream();
  const bool to_gpu = y.device.kind == Device::cuda;
  const void* const host = to_gpu ? x.data : y.data;
  if (in_stream && pinned_memory().contains(host)) {
    copy_async(y.data, x.data, y.bytes(), stream);
    // A graph's copies go on for as long as it lives, which is the caller's affair.
    if (!is_capturing(stream)) pinned_memory().use_until(host, stream, record_event(stream));
    return;
  }
  const CaptureRelaxed relaxed;  // of another stream
  if (to_gpu) return stage(y.data, static_cast<const char*>(x.data), y.bytes(), stream);
  gpu.check_may_wait();
  copy_async(y.data, x.data, y.bytes(), stream);
  check_cuda(cudaStreamSynchronize(stream), "copy between devices");
  gpu.check_faults();
}

}  // namespace cuda

void Cuda::copy_in_stream(const View& y, const View& x) {
  if (y.device == x.device) return copy(y, x);
  if (y.numel() > 0) cuda::transfer(gpu_, y, x, true);
}

}  // namespace loom
