#include <loom/fabric/strategies/ddp.h>

#include <loom/distributed/comm_hook.h>

namespace loom {

namespace {

class DdpSync final : public ModuleSync {
 public:
  DdpSync(Communicator& world, const std::vector<NamedTensor>& parameters, const std::vector<NamedTensor>& buffers,
          const DdpOptions& options)
      : ddp_(world, parameters, buffers, options) {}

  void before_forward(bool training) override { ddp_.before_forward(training); }
  void after_forward(const std::vector<Tensor>& outputs, bool all_found) override {
    ddp_.after_forward(outputs, all_found);
  }
  bool set_sync(bool enabled) override {
    const bool before = ddp_.requires_gradient_sync();
    ddp_.set_requires_gradient_sync(enabled);
    return before;
  }

  Joinable* joinable() override { return &ddp_; }

 private:
  DistributedDataParallel ddp_;
};

}  // namespace

std::unique_ptr<ModuleSync> DdpStrategy::setup_module(Communicator& world, std::vector<NamedTensor> parameters,
                                                      std::vector<NamedTensor> buffers) {
  return std::make_unique<DdpSync>(world, parameters, buffers, options_);
}

void DdpStrategy::set_gradient_scale(const Tensor& scale) {
  if (options_.comm_hook) options_.comm_hook->set_gradient_scale(scale);
}

}  // namespace loom
