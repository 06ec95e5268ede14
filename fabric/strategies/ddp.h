// Distributed data parallel: the whole model on every rank, gradients averaged during backward.
#pragma once

#include <utility>

#include <loom/distributed/ddp.h>
#include <loom/fabric/strategy.h>

namespace loom {

class DdpStrategy final : public Strategy {
 public:
  explicit DdpStrategy(DdpOptions options = {}) : options_(std::move(options)) {}
  std::string_view name() const override { return "ddp"; }
  std::unique_ptr<ModuleSync> setup_module(Communicator& world, std::vector<NamedTensor> parameters,
                                           std::vector<NamedTensor> buffers) override;
  void set_gradient_scale(const Tensor& scale) override;

 private:
  DdpOptions options_;
};

}  // namespace loom
