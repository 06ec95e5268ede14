// Communication hooks: how the gradients of a bucket become their mean over all ranks.
//
//   DistributedDataParallel ddp(ranks, nn::parameters(net), {}, {.comm_hook = bf16_compress_hook()});
//
// A hook is called with each bucket of a backward, in the order of their numbers, as soon as it is full. It issues a
// collective and returns; what has to be done when that has arrived, it leaves behind as `then`. To add one:
// distributed/README.md.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include <loom/autograd/parameter.h>
#include <loom/distributed/communicator.h>

namespace loom {

// Memory for what a hook sends. It lasts as long as the buckets, and is the communicator's own, where collectives work
// without a copy. Each copy of this object hands out the memory from its start.
class HookScratch {
 public:
  HookScratch() = default;
  explicit HookScratch(Tensor memory) : memory_(std::move(memory)) {}
  static int64_t bytes(int64_t elements, DType dtype);  // that take() uses
  Tensor take(const Dims& shape, DType dtype);          // contents are what was there
  const Tensor& memory() const { return memory_; }      // u8

 private:
  Tensor memory_;
  int64_t used_ = 0;
};

struct GradBucket {
  int index = 0;
  bool is_last = false;
  Tensor buffer;                        // flat; what this rank contributes, then the mean
  std::vector<Tensor> gradients;        // the parameters' places in it: dense, with the parameters' strides
  std::vector<NamedTensor> parameters;  // whose these are
  HookScratch scratch;
};

// One leg of an exchange: a collective under way, and what comes after it. `then` is called when `work` is done, and
// may issue the next collective; all ranks come to the same legs, those of all buckets in the same order. Without
// `then` the mean is in the bucket once `work` is done.
struct Exchange {
  Work work = {};
  std::function<Exchange()> then = {};
};
// The exchange, and then `last`, which issues nothing.
Exchange followed_by(Exchange exchange, std::function<void()> last);

class CommHook {
 public:
  virtual ~CommHook() = default;
  virtual std::string_view name() const = 0;
  // How much scratch memory it takes for a bucket (whose own scratch is not there yet); the same on all ranks.
  virtual int64_t scratch_bytes([[maybe_unused]] const GradBucket& bucket) const { return 0; }
  // Before the first bucket, and again when gradients have moved into other buckets. Collective.
  virtual void prepare([[maybe_unused]] Communicator& ranks, [[maybe_unused]] const std::vector<GradBucket>& buckets) {}
  // Starts to replace the bucket's contents by their mean over all ranks, on every rank the same bits. Bucket and
  // communicator outlive the exchange.
  virtual Exchange start(Communicator& ranks, const GradBucket& bucket) = 0;
  // Whether it keeps something of its model's gradients, so that it cannot serve a second model meanwhile.
  virtual bool keeps_state() const { return false; }

  // What the gradients of the backwards from now on are multiplied with (loss scaling): one number, the same on all
  // ranks; undefined: 1. For hooks that keep something of them, which override both. In a join a rank without data is
  // told the others' before their backward, and its own again after it. Fabric, where it scales losses, tells its scale
  // before each backward, and 1 after it.
  virtual void set_gradient_scale([[maybe_unused]] const Tensor& scale) {}
  virtual double gradient_scale() const { return 1; }

  // What a model holds while it uses the hook. Throws Error for a second user of a hook that keeps state.
  std::shared_ptr<void> claim();

 private:
  std::weak_ptr<void> user_;
};

}  // namespace loom
