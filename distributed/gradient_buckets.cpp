#include <loom/distributed/gradient_buckets.h>

#include <algorithm>
#include <utility>

#include <loom/autograd/engine.h>
#include <loom/tensor/raw.h>

namespace loom {

namespace {

// The parameter's own strides where it fills its memory without gaps (a transposed or channels-last one), so that
// gradient and parameter are walked alike; else row-major ones.
Dims dense_strides(const Tensor& x) {
  std::vector<std::pair<int64_t, int64_t>> extents;  // stride, size
  for (int d = 0; d < x.dim(); ++d)
    if (x.shape()[d] != 1) extents.emplace_back(x.strides()[d], x.shape()[d]);
  std::ranges::sort(extents);
  int64_t expected = 1;
  for (const auto& [stride, size] : extents) {
    if (stride != expected) return row_major_strides(x.shape());
    expected *= size;
  }
  return x.strides();
}

bool same_place(const Tensor& a, const Tensor& b) {
  return a.is_same(b) || (a.storage() == b.storage() && a.storage_offset() == b.storage_offset() &&
                          a.dtype() == b.dtype() && a.strides() == b.strides());
}

constexpr int64_t alignment = 64;  // of a bucket, in bytes: a cache line, and the widest vector

int64_t aligned(int64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

// Pieces of the communicator's memory, which is taken once for each device. First all of them are asked for.
class FlatMemory {
 public:
  void ask(Device device, int64_t bytes) { of(device).bytes += aligned(bytes); }
  void allocate(Communicator& communicator) {
    for (OnDevice& d : devices_)
      if (d.bytes > 0) d.memory = communicator.allocate(static_cast<size_t>(d.bytes), d.device);
  }
  // One-dimensional; zeros.
  Tensor take(Device device, int64_t elements, DType dtype) {
    OnDevice& d = of(device);
    const int64_t bytes = aligned(elements * static_cast<int64_t>(item_size(dtype)));
    if (bytes == 0) return empty({0}, {dtype, device});
    auto* const at = static_cast<std::byte*>(d.memory.get()) + std::exchange(d.used, d.used + bytes);
    return from_blob(at, {elements}, dtype, device, [memory = d.memory] {});
  }

 private:
  struct OnDevice {
    Device device;
    int64_t bytes = 0, used = 0;
    std::shared_ptr<void> memory = {};
  };
  OnDevice& of(Device device) {
    const auto found = std::ranges::find(devices_, device, &OnDevice::device);
    return found != devices_.end() ? *found : devices_.emplace_back(OnDevice{device});
  }
  std::vector<OnDevice> devices_;
};

const Tensor& first_of(std::span<const NamedTensor> parameters, const std::vector<int>& members) {
  return parameters[static_cast<size_t>(members.front())].tensor;
}

int64_t elements_of(std::span<const NamedTensor> parameters, const std::vector<int>& members) {
  int64_t total = 0;
  for (const int i : members) total += parameters[static_cast<size_t>(i)].tensor.numel();
  return total;
}

}  // namespace

GradientBuckets::GradientBuckets(Communicator& communicator, std::span<const NamedTensor> parameters,
                                 std::vector<std::vector<int>> assignment, bool as_views)
    : parameters_(parameters), views_(parameters.size()), place_of_(parameters.size()), as_views_(as_views) {
  FlatMemory memory;
  for (const std::vector<int>& members : assignment) {
    const Tensor& p = first_of(parameters, members);
    memory.ask(p.device(), elements_of(parameters, members) * static_cast<int64_t>(item_size(p.dtype())));
  }
  memory.allocate(communicator);
  for (std::vector<int>& members : assignment) {
    const Tensor& first = first_of(parameters, members);
    const Tensor flat = memory.take(first.device(), elements_of(parameters, members), first.dtype());
    GradBucket content{static_cast<int>(buckets.size()), false, flat, {}, {}, {}};
    int64_t offset = 0;
    for (const int i : members) {
      const auto at = static_cast<size_t>(i);
      const Tensor& p = parameters[at].tensor;
      views_[at] = raw::as_strided(content.buffer, p.shape(), dense_strides(p), offset);
      place_of_[at] = content.index;
      content.gradients.push_back(views_[at]);
      content.parameters.push_back(parameters[at]);
      offset += p.numel();
    }
    buckets.push_back({std::move(content), std::move(members), 0, {}});
  }
  buckets.back().content.is_last = true;
  if (!as_views) return;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Tensor& p = parameters[i].tensor;
    set_grad_buffer(p, views_[i]);
    if (!p.grad().defined()) continue;
    raw::copy_into(views_[i], p.grad());
    p.set_grad(views_[i]);
  }
}

GradientBuckets::~GradientBuckets() {
  if (!as_views_) return;
  for (size_t i = 0; i < views_.size(); ++i) {  // a later setup may have given them other places
    const Tensor& p = parameters_[i].tensor;
    if (p.requires_grad() && grad_buffer(p).defined() && grad_buffer(p).is_same(views_[i])) set_grad_buffer(p, {});
  }
}

void GradientBuckets::prepare(Communicator& communicator, CommHook& hook) {
  FlatMemory memory;
  std::vector<int64_t> bytes;
  for (const ReducedBucket& b : buckets) {
    bytes.push_back(hook.scratch_bytes(b.content));
    memory.ask(b.content.buffer.device(), bytes.back());
  }
  memory.allocate(communicator);
  std::vector<GradBucket> shown;
  for (size_t i = 0; i < buckets.size(); ++i) {
    GradBucket& content = buckets[i].content;
    content.scratch = {};
    if (bytes[i] > 0) content.scratch = HookScratch(memory.take(content.buffer.device(), aligned(bytes[i]), DType::u8));
    shown.push_back(content);
  }
  hook.prepare(communicator, shown);
}

void GradientBuckets::fill(int parameter, bool used) const {
  const Tensor& p = parameters_[static_cast<size_t>(parameter)].tensor;
  const Tensor& view = views_[static_cast<size_t>(parameter)];
  if (!p.grad().defined())
    view.zero_();
  else if (!same_place(p.grad(), view))
    raw::copy_into(view, p.grad());
  else if (!used)
    p.set_grad(raw::clone(view));
}

void GradientBuckets::publish(int parameter) const {
  const Tensor& p = parameters_[static_cast<size_t>(parameter)].tensor;
  const Tensor& view = views_[static_cast<size_t>(parameter)];
  if (as_views_) {
    if (!p.grad().defined() || !p.grad().is_same(view)) p.set_grad(view);
  } else if (p.grad().defined()) {
    raw::copy_into(p.grad(), view);
  } else {
    p.set_grad(raw::clone(view));
  }
}

std::vector<std::vector<int>> GradientBuckets::assignment() const {
  std::vector<std::vector<int>> out;
  out.reserve(buckets.size());
  for (const ReducedBucket& b : buckets) out.push_back(b.parameters);
  return out;
}

std::vector<int64_t> GradientBuckets::sizes() const {
  std::vector<int64_t> out;
  out.reserve(buckets.size());
  for (const ReducedBucket& b : buckets)
    out.push_back(b.content.buffer.numel() * static_cast<int64_t>(item_size(b.content.buffer.dtype())));
  return out;
}

}  // namespace loom
