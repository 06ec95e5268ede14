#include <loom/distributed/nccl.h>

#include <exception>
#include <utility>

#include <loom/distributed/forward.h>
#include <loom/distributed/nccl/communicator.h>
#include <loom/distributed/nccl/group.h>
#include <loom/distributed/nccl/watchdog.h>
#include <loom/distributed/staged.h>

namespace loom {

namespace {

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(std::shared_ptr<Communicator> host, std::shared_ptr<nccl::Group> group,
                   const CommunicatorOptions& options)
      : Communicator(host->rank(), host->size(), options),
        host_(std::move(host)),
        group_(std::move(group)),
        messages_(staged_communicator(host_, group_->setting().device, {options})) {}

  ~NcclCommunicator() override {
    const bool unwinding = std::uncaught_exceptions() > exceptions_;
    try {
      group_->leave(unwinding);
    } catch (const std::exception& e) {  // the device has failed
      host_->abort(e.what());
    }
  }

  std::string_view name() const override { return "nccl"; }
  bool serves(Device device) const override { return device.kind == Device::cpu || device == group_->setting().device; }
  std::string node() override { return host_->node(); }
  std::shared_ptr<void> allocate(size_t bytes, Device device) override {
    return device.kind == Device::cpu ? host_->allocate(bytes) : Communicator::allocate(bytes, device);
  }

  std::unique_ptr<Communicator> split(int color, int key) override {
    std::shared_ptr<Communicator> part = host_->split(color, key);
    auto group = group_->split(part.get(), color, key);
    if (!part) return nullptr;
    return std::make_unique<NcclCommunicator>(std::move(part), std::move(group), options());
  }

  void abort(const std::string& reason) noexcept override {
    nccl::fail_family(group_->setting().family, str("aborted by rank ", rank(), ": ", reason));
    host_->abort(reason);
  }

 protected:
  Work submit(Collective c) override {
    if (!on_gpu(c)) return forward_to(*host_, c);
    if (c.between_two()) return forward_to(*messages_, c);
    group_->check_alive();
    return is_empty(c) ? Work() : group_->submit(c);
  }

 private:
  const int exceptions_ = std::uncaught_exceptions();
  const std::shared_ptr<Communicator> host_;
  const std::shared_ptr<nccl::Group> group_;
  const std::unique_ptr<Communicator> messages_;
};

}  // namespace

namespace nccl {

std::unique_ptr<Communicator> make_communicator(std::shared_ptr<Communicator> host, Device device,
                                                const CommunicatorOptions& options) {
  auto group =
      Group::make(*host, {.device = device, .rank = host->rank(), .size = host->size(), .timeout = options.timeout});
  return std::make_unique<NcclCommunicator>(std::move(host), std::move(group), options);
}

}  // namespace nccl

}  // namespace loom
