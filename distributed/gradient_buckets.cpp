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

// One-dimensional zeros for each bucket, all of them in one piece of the communicator's memory.
class FlatMemory {
 public:
  FlatMemory(Communicator& communicator, std::span<const NamedTensor> parameters,
             const std::vector<std::vector<int>>& assignment)
      : parameters_(parameters) {
    int64_t bytes = 0;
    for (const std::vector<int>& members : assignment)
      if (on_cpu(members)) bytes += aligned(bytes_of(members));
    if (bytes > 0) memory_ = communicator.allocate(static_cast<size_t>(bytes));
  }
  Tensor take(const std::vector<int>& members) {
    const Tensor& p = first(members);
    if (!on_cpu(members)) return zeros({numel(members)}, {p.dtype(), p.device()});
    void* const at = static_cast<std::byte*>(memory_.get()) + std::exchange(used_, used_ + aligned(bytes_of(members)));
    return from_blob(at, {numel(members)}, p.dtype(), p.device(), [memory = memory_] {});
  }

 private:
  const Tensor& first(const std::vector<int>& members) const {
    return parameters_[static_cast<size_t>(members.front())].tensor;
  }
  bool on_cpu(const std::vector<int>& members) const { return first(members).device().kind == Device::cpu; }
  int64_t numel(const std::vector<int>& members) const {
    int64_t total = 0;
    for (const int i : members) total += parameters_[static_cast<size_t>(i)].tensor.numel();
    return total;
  }
  int64_t bytes_of(const std::vector<int>& members) const {
    return numel(members) * static_cast<int64_t>(item_size(first(members).dtype()));
  }

  std::span<const NamedTensor> parameters_;
  std::shared_ptr<void> memory_;
  int64_t used_ = 0;
};

}  // namespace

GradientBuckets::GradientBuckets(Communicator& communicator, std::span<const NamedTensor> parameters,
                                 std::vector<std::vector<int>> assignment, bool as_views)
    : parameters_(parameters), views_(parameters.size()), place_of_(parameters.size()), as_views_(as_views) {
  FlatMemory memory(communicator, parameters, assignment);
  for (std::vector<int>& members : assignment) {
    GradBucket content{static_cast<int>(buckets.size()), false, memory.take(members), {}, {}, {}};
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
  std::vector<int64_t> bytes;
  int64_t on_host = 0;
  for (const ReducedBucket& b : buckets) {
    bytes.push_back(aligned(hook.scratch_bytes(b.content)));
    if (b.content.buffer.device().kind == Device::cpu) on_host += bytes.back();
  }
  const auto memory = on_host > 0 ? communicator.allocate(static_cast<size_t>(on_host)) : nullptr;
  auto* next = static_cast<std::byte*>(memory.get());
  std::vector<GradBucket> shown;
  for (size_t i = 0; i < buckets.size(); ++i) {
    GradBucket& content = buckets[i].content;
    const Device device = content.buffer.device();
    content.scratch = {};
    if (bytes[i] > 0 && device.kind == Device::cpu)
      content.scratch =
          HookScratch(from_blob(std::exchange(next, next + bytes[i]), {bytes[i]}, DType::u8, device, [memory] {}));
    else if (bytes[i] > 0)
      content.scratch = HookScratch(empty({bytes[i]}, {DType::u8, device}));
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
