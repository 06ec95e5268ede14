// Batches of a data set: `for (auto [x, y] : loader)`. Each loop is one epoch, and the next loop the next epoch.
//
// What a batch holds depends on the seed, the epoch and its place in the epoch; not on workers, ranks or restarts.
// Random draws in get() too: each sample has a generator of its own (get_batch: each batch).
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <loom/data/batching.h>
#include <loom/data/collate.h>
#include <loom/data/dataset.h>
#include <loom/data/prefetch.h>
#include <loom/data/sent.h>
#include <loom/tensor/context.h>

namespace loom::data {

// The context of whoever prepares samples for the rank `caller`: no gradients, on the host, with the generator of one
// sample of one epoch. device: where batches will be copied to.
Context loading_context(const Context& caller, std::optional<Device> device = {});
Generator sample_generator(uint64_t seed, int64_t epoch, uint64_t ticket);

template <Dataset D, class Collate = DefaultCollate>
class DataLoader {
 public:
  using Sample = std::remove_cvref_t<decltype(std::declval<const D&>().get(0))>;
  static constexpr bool by_batch = BatchedDataset<D> && std::same_as<Collate, DefaultCollate>;

 private:
  struct Loop;
  static auto batch_type() {
    if constexpr (by_batch)
      return std::type_identity<decltype(std::declval<const D&>().get_batch({}))>();
    else
      return std::type_identity<decltype(std::declval<const Collate&>()(std::span<const Sample>()))>();
  }

 public:
  using Batch = typename decltype(batch_type())::type;
  using Transform = std::function<Batch(Batch)>;

  // collate: from std::span<const Sample> to any type of batch.
  explicit DataLoader(D dataset, const DataLoaderOptions& options = {}, Collate collate = {})
      : dataset_(std::make_shared<const D>(std::move(dataset))),
        collate_(std::move(collate)),
        batching_(dataset_->size(), options),
        workers_(options.num_workers),
        ahead_(int64_t{options.num_workers} * options.prefetch_factor) {
    state_.seed = batching_.seed();
  }

  int64_t size() const { return batching_.size(); }  // batches of a whole epoch, on this rank
  const D& dataset() const { return *dataset_; }

  // Where the loop is; the batch in its body counts as consumed. After load_state() the next loop goes on from there.
  LoaderState state() const { return state_; }
  void load_state(const LoaderState& state) {
    check_state(state);
    state_ = state;
    batching_.reseed(state.seed);
    looping_ = false;
  }
  void check_state(const LoaderState& state) const { batching_.check_state(state); }  // throws what load_state would
  std::string describe() const { return batching_.describe(); }  // what positions count: "40 samples, shuffled"
  // The epoch of the next loop. What load_state() has brought of this very epoch is kept.
  void set_epoch(int64_t epoch) {
    if (looping_ || epoch != state_.epoch) state_.position = 0;
    state_.epoch = epoch;
    looping_ = false;
  }

  // The loader of one rank of many: the same data set and order, sharded. exact: nothing is repeated to make the ranks'
  // shares equal; ranks that run out of samples get an empty last batch.
  DataLoader distributed(int64_t num_replicas, int64_t rank, std::optional<uint64_t> seed = {},
                         bool exact = false) const {
    DataLoader out = *this;
    out.batching_ = batching_.distributed({.num_replicas = num_replicas, .rank = rank, .exact = exact}, seed);
    out.state_.seed = out.batching_.seed();
    return out;
  }
  // The same loader with each batch passed through f, in the thread that loops: to a device, for one.
  DataLoader transformed(Transform f) const {
    DataLoader out = *this;
    if (!transform_)
      out.transform_ = std::move(f);
    else
      out.transform_ = [f = std::move(f), before = transform_](Batch b) { return f(before(std::move(b))); };
    return out;
  }
  // The same loader with its batches on a device: collated into pinned memory, and copied one batch ahead beside the
  // computation, whose stream waits for the copy. What transformed() was given before sees them on the host, and then
  // they are copied in their turn, as they are where `ahead` is false; what it is given afterwards, on the device.
  DataLoader on_device(Device device, bool ahead = true) const {
    if (device.kind == Device::cpu) return *this;
    if (transform_ || !ahead)
      return transformed([device](Batch batch) {
        return map_tensors([device](const Tensor& x) { return x.to(device); }, std::move(batch));
      });
    DataLoader out = *this;
    out.device_ = device;
    return out;
  }

  class Iterator {
   public:
    explicit Iterator(DataLoader& loader) : loader_(&loader), loop_(loader.start()) { advance(); }
    Batch& operator*() { return *batch_; }
    Batch* operator->() { return &*batch_; }
    Iterator& operator++() {
      advance();
      return *this;
    }
    bool operator==(std::default_sentinel_t) const { return !batch_; }

   private:
    void advance() {
      batch_.reset();  // its memory serves the next one
      batch_ = loader_->next(*loop_);
    }
    DataLoader* loader_;
    std::unique_ptr<Loop> loop_;
    std::optional<Batch> batch_;
  };

  Iterator begin() { return Iterator(*this); }
  std::default_sentinel_t end() const { return {}; }

 private:
  // What the workers of a loop read: nothing of the loader, which may be moved meanwhile.
  struct Job {
    std::shared_ptr<const D> dataset;
    Collate collate;
    BatchPlan plan;
    int64_t epoch;
    uint64_t seed;
    Context context;

    Batch operator()(int64_t i) const {
      const profile::Range range(Activity::loader, "DataLoader.collate");
      Context mine = context;
      const ContextGuard guard(mine);
      return pinned(batch(i, mine), mine.pinned_for);
    }
    Batch batch(int64_t i, Context& mine) const {
      const auto indices = plan.batch(i);
      if (!indices.empty()) return make(i, indices, mine);
      const int64_t first = 0;  // an empty batch has the shape of a batch, so it is one with its rows cut off
      const auto rows = [](const Tensor& x) { return x.dim() == 0 ? x : raw::slice(x, 0, 0, 0, 1); };
      return map_tensors(rows, make(i, std::span(&first, 1), mine));
    }
    Batch make(int64_t i, std::span<const int64_t> indices, Context& mine) const {
      if constexpr (by_batch) {
        mine.generator = sample_generator(seed, epoch, plan.ticket(i, 0));
        return dataset->get_batch(indices);
      } else {
        std::vector<Sample> samples;
        samples.reserve(indices.size());
        for (size_t k = 0; k < indices.size(); ++k) {
          mine.generator = sample_generator(seed, epoch, plan.ticket(i, static_cast<int64_t>(k)));
          samples.push_back(dataset->get(indices[k]));
        }
        return collate(std::span<const Sample>(samples));
      }
    }
  };
  struct Loop {
    BatchPlan plan;
    int64_t taken = 0, number = 0;
    Prefetch<Batch> batches;
    std::optional<Device> device;
    std::optional<Sent<Batch>> ahead = {};  // the next one, on its way

    bool exhausted() const { return !ahead && batches.exhausted(); }
    Batch take() {
      const profile::Range range(Activity::loader, "DataLoader.next");
      if (!device) return batches.take();
      Sent<Batch> sent = ahead ? std::move(*ahead) : send();
      ahead.reset();
      Batch out = sent.receive();
      if (batches.ready()) ahead.emplace(send());
      return out;
    }
    Sent<Batch> send() {
      return Sent<Batch>(*device, [this] { return batches.take(); });
    }
  };

  std::unique_ptr<Loop> start() {
    if (std::exchange(looping_, false)) {  // the loop before this one was left early
      ++state_.epoch;
      state_.position = 0;
    }
    BatchPlan plan = batching_.plan(state_.epoch, state_.position);
    looping_ = true;
    Job job{dataset_, collate_, plan, state_.epoch, state_.seed, loading_context(context(), device_)};
    return std::unique_ptr<Loop>(
        new Loop{plan, 0, ++loops_, Prefetch<Batch>(plan.size(), workers_, ahead_, std::move(job)), device_});
  }
  std::optional<Batch> next(Loop& loop) {
    check(loop.number == loops_,
          "DataLoader: another loop over this loader began within this one, and its place in the ",
          "epoch is the loader's; copy the loader for the inner loop");
    if (loop.exhausted()) {
      ++state_.epoch;
      state_.position = 0;
      looping_ = false;
      return {};
    }
    const int64_t i = loop.taken++;
    Batch batch = loop.take();
    state_.position = loop.plan.position_after(i);
    return transform_ ? transform_(std::move(batch)) : std::move(batch);
  }

  std::shared_ptr<const D> dataset_;
  Collate collate_;
  Batching batching_;
  int workers_;
  int64_t ahead_;
  Transform transform_;
  std::optional<Device> device_;
  LoaderState state_;
  bool looping_ = false;
  int64_t loops_ = 0;  // begun so far
};

}  // namespace loom::data
