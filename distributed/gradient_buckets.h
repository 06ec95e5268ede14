// The memory of the reducer: flat buffers, and each parameter's place in one of them.
#pragma once

#include <span>
#include <vector>

#include <loom/autograd/parameter.h>
#include <loom/distributed/buckets.h>
#include <loom/distributed/comm_hook.h>

namespace loom {

struct ReducedBucket {
  GradBucket content;           // one dtype, one device
  std::vector<int> parameters;  // indices, as they lie in it
  int pending = 0;              // of these, not ready yet
  Exchange exchange;            // its reduction
};

// With `as_views` a parameter's gradient is its place in the bucket: the engine writes there, nothing is copied.
// Without it gradients have memory of their own and are copied in and out. The communicator gives the memory.
class GradientBuckets {
 public:
  // Gradients that exist move into their places. Collective.
  GradientBuckets(Communicator& communicator, std::span<const NamedTensor> parameters,
                  std::vector<std::vector<int>> assignment, bool as_views);
  ~GradientBuckets();
  GradientBuckets(const GradientBuckets&) = delete;
  GradientBuckets& operator=(const GradientBuckets&) = delete;

  // Gives the hook its scratch memory, and shows it the buckets. Collective.
  void prepare(Communicator& communicator, CommHook& hook);

  // Puts what this rank contributes into the parameter's place: its gradient, or zeros where there is none. A gradient
  // that this backward did not touch (`used` false) is kept apart, for it stays what it is if no rank used it.
  void fill(int parameter, bool used) const;
  // Makes the place's contents the parameter's gradient.
  void publish(int parameter) const;

  ReducedBucket& of(int parameter) { return buckets[static_cast<size_t>(place_of_[static_cast<size_t>(parameter)])]; }
  std::vector<std::vector<int>> assignment() const;
  std::vector<int64_t> sizes() const;  // bytes

  std::vector<ReducedBucket> buckets;

 private:
  std::span<const NamedTensor> parameters_;
  std::vector<Tensor> views_;  // by parameter; dense ones keep the parameter's strides
  std::vector<int> place_of_;  // by parameter: its bucket
  bool as_views_;
};

}  // namespace loom
