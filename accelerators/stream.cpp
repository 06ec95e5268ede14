#include <loom/accelerators/stream.h>

#include <loom/accelerators/accelerator.h>

namespace loom {

bool Event::is_done() const { return !handle_ || accelerator(device_).is_done(handle_.get()); }
void Event::synchronize() const {
  if (handle_) accelerator(device_).wait(handle_.get());
}

Event Stream::record() const { return {device_, accelerator(device_).record(handle_)}; }
void Stream::wait(const Event& event) const {
  if (event.handle_) accelerator(event.device_).order(handle_, event.handle_.get());
}
void Stream::synchronize() const { record().synchronize(); }

Stream stream(Device device, Lane lane) { return Stream(device, accelerator(device).stream(lane)); }
Stream current_stream(Device device) { return Stream(device, accelerator(device).current_stream()); }
void synchronize(Device device) { accelerator(device).synchronize(); }

StreamScope::StreamScope(const Stream& stream) : previous_(current_stream(stream.device())) {
  accelerator(stream.device()).set_current_stream(stream.handle());
}
StreamScope::~StreamScope() { accelerator(previous_.device()).set_current_stream(previous_.handle()); }

}  // namespace loom
