// A data set is any type with `int64_t size() const` and `auto get(int64_t index) const`, which returns a sample: a
// tensor, a number, or a tuple, pair, array or plain struct of these. get is called from several threads at once. One
// that can build a whole batch faster offers `auto get_batch(std::span<const int64_t> indices) const` too.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <memory>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include <loom/data/sampler.h>
#include <loom/tensor/raw.h>

namespace loom::data {

template <class D>
concept Dataset = requires(const D& dataset, int64_t index) {
  { dataset.size() } -> std::convertible_to<int64_t>;
  dataset.get(index);
};

template <class D>
concept BatchedDataset =
    Dataset<D> && requires(const D& dataset, std::span<const int64_t> indices) { dataset.get_batch(indices); };

// Rows of tensors that have the same first extent: TensorDataset(images, labels).
template <size_t n>
class TensorDataset {
 public:
  template <std::same_as<Tensor>... T>
  explicit TensorDataset(const T&... tensors) : tensors_{tensors...} {
    for (size_t i = 0; i < n; ++i)
      check(tensors_[i].dim() >= 1 && tensors_[i].size(0) == tensors_[0].size(0), "TensorDataset: tensor ", i,
            " has shape ", tensors_[i].shape(), ", tensor 0 ", tensors_[0].shape(), "; expects equal first dimensions");
  }
  int64_t size() const { return tensors_[0].size(0); }
  auto get(int64_t index) const {
    check(index >= 0 && index < size(), "TensorDataset: index ", index, " is out of range for ", size(), " samples");
    return map([&](const Tensor& x) { return raw::select(x, 0, index); });
  }
  auto get_batch(std::span<const int64_t> indices) const {
    const Tensor rows = from_span(indices, Dims{std::ssize(indices)}, {DType::i64, Device::cpu});
    return map([&](const Tensor& x) { return raw::index_select(x, 0, raw::to_device(rows, x.device())); });
  }

 private:
  auto map(const auto& f) const {
    return std::apply([&](const auto&... x) { return std::tuple{f(x)...}; }, tensors_);
  }
  std::array<Tensor, n> tensors_;
};
template <class... T>
TensorDataset(const T&...) -> TensorDataset<sizeof...(T)>;

// Some of a data set's samples, in the given order.
template <Dataset D>
class Subset {
 public:
  Subset(D dataset, std::vector<int64_t> indices)
      : Subset(std::make_shared<const D>(std::move(dataset)), std::move(indices)) {}
  Subset(std::shared_ptr<const D> dataset, std::vector<int64_t> indices)
      : dataset_(std::move(dataset)), indices_(std::move(indices)) {
    for (const int64_t i : indices_)
      check(i >= 0 && i < dataset_->size(), "Subset: index ", i, " is out of range for ", dataset_->size(), " samples");
  }
  int64_t size() const { return std::ssize(indices_); }
  const std::vector<int64_t>& indices() const { return indices_; }
  auto get(int64_t index) const { return dataset_->get(original(index)); }
  auto get_batch(std::span<const int64_t> indices) const
    requires BatchedDataset<D>
  {
    std::vector<int64_t> originals;
    for (const int64_t i : indices) originals.push_back(original(i));
    return dataset_->get_batch(originals);
  }

 private:
  int64_t original(int64_t index) const {
    check(index >= 0 && index < size(), "Subset: index ", index, " is out of range for ", size(), " samples");
    return indices_[static_cast<size_t>(index)];
  }
  std::shared_ptr<const D> dataset_;
  std::vector<int64_t> indices_;
};

// Data sets of one type, one after the other.
template <Dataset D>
class ConcatDataset {
 public:
  explicit ConcatDataset(std::vector<D> datasets) : datasets_(std::move(datasets)) {
    check(!datasets_.empty(), "ConcatDataset: no data sets given");
    for (const D& dataset : datasets_) ends_.push_back(size() + dataset.size());
  }
  int64_t size() const { return ends_.empty() ? 0 : ends_.back(); }
  auto get(int64_t index) const {
    check(index >= 0 && index < size(), "ConcatDataset: index ", index, " is out of range for ", size(), " samples");
    const auto part = static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), index) - ends_.begin());
    return datasets_[part].get(part == 0 ? index : index - ends_[part - 1]);
  }

 private:
  std::vector<D> datasets_;
  std::vector<int64_t> ends_;
};

// Sizes of the parts of `total`: given as counts that add up to it, or as fractions that add up to 1 (rounded down;
// what is left goes one by one to the first parts, as PyTorch does).
std::vector<int64_t> split_sizes(int64_t total, const std::vector<double>& lengths);

// Disjoint random subsets that share the data set: random_split(dataset, {0.9, 0.1}) or {50000, 10000}.
template <Dataset D>
std::vector<Subset<D>> random_split(D dataset, const std::vector<double>& lengths, uint64_t seed = 0) {
  const auto shared = std::make_shared<const D>(std::move(dataset));
  const auto order = permutation(shared->size(), seed);
  std::vector<Subset<D>> out;
  auto begin = order.begin();
  for (const int64_t size : split_sizes(shared->size(), lengths)) {
    out.emplace_back(shared, std::vector<int64_t>(begin, begin + size));
    begin += size;
  }
  return out;
}

}  // namespace loom::data
