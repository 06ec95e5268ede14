#include <loom/tensor/storage.h>

#include <utility>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/host_memory.h>

namespace loom {

Storage::Storage(size_t bytes, Device device)
    : data_(device.kind == Device::cpu ? host_memory::take(bytes) : accelerator(device).allocate(bytes)),
      bytes_(bytes),
      device_(device) {}

Storage::Storage(void* data, size_t bytes, Device device, std::function<void()> release)
    : data_(data), bytes_(bytes), device_(device), external_(true) {
  if (release) release_ = std::make_unique<std::function<void()>>(std::move(release));
}

Storage::~Storage() {
  if (external_) {
    if (release_) (*release_)();
  } else if (device_.kind == Device::cpu) {
    host_memory::give(data_);
  } else {
    accelerator(device_).release(data_);
  }
}

void destroy(const Storage* storage) noexcept { delete storage; }

}  // namespace loom
