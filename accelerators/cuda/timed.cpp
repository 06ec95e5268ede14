#include <loom/accelerators/cuda/timed.h>

#include <loom/accelerators/cuda/runtime.h>

namespace loom::cuda {

namespace {

// Between two events: the host's pauses between launches weigh less.
constexpr int times = 4;

class TimedEvent {
 public:
  TimedEvent() { check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDefault), "cudaEventCreate"); }
  ~TimedEvent() { (void)cudaEventDestroy(event_); }
  TimedEvent(const TimedEvent&) = delete;
  TimedEvent& operator=(const TimedEvent&) = delete;
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace

std::optional<double> timed(Gpu& gpu, const std::function<void()>& start) {
  const DeviceScope scope(gpu.index());
  const CaptureRelaxed relaxed;  // of another stream
  const TimedEvent before, after;
  try {
    check_cuda(cudaEventRecord(before.get(), gpu.stream()), "cudaEventRecord");
    for (int i = 0; i < times; ++i) start();
    check_cuda(cudaEventRecord(after.get(), gpu.stream()), "cudaEventRecord");
    check_cuda(cudaEventSynchronize(after.get()), "cudaEventSynchronize");
    float out = 0;
    check_cuda(cudaEventElapsedTime(&out, before.get(), after.get()), "cudaEventElapsedTime");
    return static_cast<double>(out) / times;
  } catch (const Error&) {
    (void)cudaGetLastError();  // of a launch that was refused
    return std::nullopt;
  }
}

bool is_captured(Gpu& gpu) {
  const DeviceScope scope(gpu.index());
  return is_capturing(gpu.stream());
}

}  // namespace loom::cuda
