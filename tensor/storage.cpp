#include <loom/tensor/storage.h>

#include <utility>

#include <loom/accelerators/accelerator.h>

namespace loom {

Storage::Storage(size_t bytes, Device device)
    : data_(accelerator(device).allocate(bytes)), bytes_(bytes), device_(device) {}

Storage::Storage(void* data, size_t bytes, Device device, std::function<void()> release)
    : data_(data), bytes_(bytes), device_(device), external_(true) {
  if (release) release_ = std::make_unique<std::function<void()>>(std::move(release));
}

Storage::~Storage() {
  if (!external_)
    accelerator(device_).release(data_);
  else if (release_)
    (*release_)();
}

void destroy(const Storage* storage) noexcept { delete storage; }

}  // namespace loom
