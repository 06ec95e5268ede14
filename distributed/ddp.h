// Data parallelism: every rank holds the whole model, computes gradients on its own part of a batch, and gets the mean
// of all ranks' gradients (Li et al., PyTorch Distributed, 2020).
//
//   DistributedDataParallel ddp(communicator, nn::parameters(net), nn::buffers(net));
//   Tensor loss = cross_entropy(ddp.forward([&] { return net(x); }), y);
//   loss.backward();  // gradients are reduced meanwhile; when it returns, .grad is the mean on all ranks
//
// Which backward is synchronised is decided at forward: each backward of a forward outside of no_sync is, also where
// several forwards come before their backwards, and wherever backward is called. What is reduced is .grad with all that
// has been accumulated in it.
#pragma once

#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include <loom/autograd/parameter.h>
#include <loom/distributed/communicator.h>
#include <loom/distributed/ddp_options.h>
#include <loom/distributed/join.h>
#include <loom/tensor/nested.h>

namespace loom {

class Reducer;

class DistributedDataParallel final : public Joinable {
 public:
  // Collective. The communicator and the tensors outlive this object; frozen parameters are broadcast, not reduced.
  // While all others are frozen too (a GAN's discriminator in the generator's step), the backward of a forward is none
  // of this model's; some of them frozen or thawed is an Error at the next forward.
  DistributedDataParallel(Communicator& communicator, const std::vector<NamedTensor>& parameters,
                          const std::vector<NamedTensor>& buffers = {}, DdpOptions options = {});
  ~DistributedDataParallel() override;
  DistributedDataParallel(const DistributedDataParallel&) = delete;
  DistributedDataParallel& operator=(const DistributedDataParallel&) = delete;

  // Runs f, which runs the model, and returns its result. training false (the model is in eval mode): no collective.
  template <class F>
  auto forward(F&& f, bool training = true) {
    before_forward(training);
    if constexpr (std::is_void_v<std::invoke_result_t<F&>>) {
      f();
      after_forward({}, false);
    } else {
      auto result = f();
      std::vector<Tensor> outputs;
      const bool all_found = nested::find_tensors(result, outputs);
      after_forward(outputs, all_found);
      return result;
    }
  }

  // Forwards in its scope are not synchronised: their backwards add to .grad locally.
  class NoSync {
   public:
    NoSync(DistributedDataParallel& ddp, bool enabled) : ddp_(ddp), previous_(ddp.sync_) {
      if (enabled) ddp_.sync_ = false;
    }
    ~NoSync() { ddp_.sync_ = previous_; }
    NoSync(const NoSync&) = delete;
    NoSync& operator=(const NoSync&) = delete;

   private:
    DistributedDataParallel& ddp_;
    const bool previous_;
  };
  [[nodiscard]] NoSync no_sync(bool enabled = true) { return {*this, enabled}; }
  // The same without a scope.
  void set_requires_gradient_sync(bool sync) { sync_ = sync; }
  bool requires_gradient_sync() const { return sync_; }

  // How gradients are averaged from now on, as DdpOptions::comm_hook: only one of both, once. Collective.
  void register_comm_hook(std::shared_ptr<CommHook> hook);

  const DdpStatistics& statistics() const;

  // The two halves of forward(), for callers that cannot pass their forward as a function. all_found: whether `outputs`
  // are all the tensors that the forward returned.
  void before_forward(bool training = true);
  void after_forward(const std::vector<Tensor>& outputs, bool all_found);

  // Uneven inputs (join.h).
  Communicator& join_communicator() const override { return communicator_; }
  bool joined() const override { return join_ != nullptr; }
  void set_join(Join* join) override;
  void shadow(int event) override;
  void adopt(int rank) override;

 private:
  void check_frozen() const;
  void follow_forward(bool rebuild, bool buffers);

  Communicator& communicator_;
  const DdpOptions options_;
  std::vector<Tensor> buffers_;
  std::vector<NamedTensor> frozen_;  // parameters that are not reduced
  std::shared_ptr<Reducer> reducer_;
  Join* join_ = nullptr;
  bool sync_ = true;
  bool training_ = true;         // in the forward that runs
  bool frozen_forward_ = false;  // all that is reduced was frozen as it began
  bool buffers_due_ = true;      // the last forward in training was synchronised
};

}  // namespace loom
