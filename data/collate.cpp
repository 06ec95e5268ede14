#include <loom/data/collate.h>

#include <cstring>

#include <loom/tensor/context.h>
#include <loom/tensor/pinned.h>
#include <loom/tensor/raw.h>

namespace loom::data {

namespace {

void check_alike(std::span<const Tensor> samples) {
  check(samples[0].defined(), "collate: sample 0 is an undefined tensor");
  for (size_t i = 1; i < samples.size(); ++i) {
    check(samples[i].defined(), "collate: sample ", i, " is an undefined tensor");
    check(samples[i].shape() == samples[0].shape(), "collate: sample ", i, " has shape ", samples[i].shape(),
          ", sample 0 ", samples[0].shape(), "; pad them to one shape, or give the loader a collate function");
    check(samples[i].dtype() == samples[0].dtype() && samples[i].device() == samples[0].device(), "collate: sample ", i,
          " is ", samples[i].dtype(), " on ", samples[i].device(), ", sample 0 ", samples[0].dtype(), " on ",
          samples[0].device());
  }
}

}  // namespace

Tensor stack_samples(std::span<const Tensor> samples) {
  check(!samples.empty(), "collate: no samples");
  check_alike(samples);
  const Tensor& first = samples[0];
  if (first.device().kind != Device::cpu) {
    std::vector<Tensor> rows;
    for (const Tensor& sample : samples) rows.push_back(raw::unsqueeze(sample, 0));
    return raw::cat(rows, 0);
  }
  Dims shape = first.shape();
  shape.insert(0, static_cast<int64_t>(samples.size()));
  const auto& pinned_for = context().pinned_for;
  Tensor out =
      pinned_for ? empty_pinned(shape, first.dtype(), *pinned_for) : empty(shape, {first.dtype(), Device::cpu});
  const size_t bytes = View(first).bytes();
  auto* to = static_cast<std::byte*>(View(out).data);
  // Plain copies: a worker leaves the kernels' threads to the training step.
  for (size_t i = 0; i < samples.size() && bytes > 0; ++i) {
    const Tensor dense = raw::contiguous(samples[i]);
    std::memcpy(to + i * bytes, View(dense).data, bytes);
  }
  return out;
}

}  // namespace loom::data
