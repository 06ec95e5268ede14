// Which parameters a step uses: by the graph, before backward; and on any rank, after it.
#pragma once

#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include <loom/autograd/parameter.h>
#include <loom/distributed/communicator.h>

namespace loom {

namespace autograd {
struct Meta;
}

// Finds the leaves that outputs depend on.
class LeafFinder {
 public:
  explicit LeafFinder(std::span<const NamedTensor> leaves);
  std::vector<bool> reached_from(std::span<const Tensor> outputs) const;

 private:
  std::unordered_map<const autograd::Meta*, size_t> index_;
};

// One forward. Hooks on its outputs hold it: they tell when backward comes to it.
struct ForwardPass {
  bool synced = false;
  bool outputs_known = false;  // backward starts from tensors that were found in its result
  bool walked = false;         // `used` is known
  std::vector<bool> used;      // by parameter
  bool differentiated = false;
};

// The synchronised forwards whose backward is still to come, as far as their graphs live.
class PendingForwards {
 public:
  void add(const std::shared_ptr<ForwardPass>& forward);
  // Parameters that neither `reached` nor those pending use: nobody need wait for them. Forwards may share a backward,
  // hence all of them count.
  std::vector<bool> surely_unused(std::span<const std::shared_ptr<ForwardPass>> reached, size_t parameters) const;

 private:
  std::vector<std::weak_ptr<ForwardPass>> forwards_;
};

// Which parameters got a gradient, here and on any rank. The host decides by it, so it goes over the host: nobody waits
// for a device.
class ParameterUse {
 public:
  explicit ParameterUse(size_t parameters);
  void note(int parameter) { here_[static_cast<size_t>(parameter)] = 1; }
  bool here(int parameter) const { return here_[static_cast<size_t>(parameter)] != 0; }
  int unused_here() const;
  void exchange(Communicator& communicator);  // starts; on all ranks
  bool anywhere(int parameter);
  void finish();  // waits for the exchange
  void clear();
  const Tensor& flags() const { return flags_; }  // under way with work()
  const Work& work() const { return work_; }

 private:
  std::vector<int32_t> here_, anywhere_;
  Tensor flags_;
  Work work_;
};

}  // namespace loom
