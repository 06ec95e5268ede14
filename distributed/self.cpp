#include <cstring>
#include <mutex>

#include <loom/accelerators/accelerator.h>
#include <loom/distributed/communicator.h>

namespace loom {
namespace {

class SelfCommunicator : public Communicator {
 public:
  explicit SelfCommunicator(const CommunicatorOptions& options) : Communicator(0, 1, options) {}
  std::string_view name() const override { return "self"; }

  std::unique_ptr<Communicator> split(int color, int) override {
    check_alive();
    return color < 0 ? nullptr : self_communicator(options());
  }
  void abort(const std::string& reason) noexcept override {
    const std::lock_guard lock(mutex_);
    if (aborted_.empty()) aborted_ = str("aborted by rank 0: ", reason);
  }

 protected:
  Work submit(Collective c) override {
    check_alive();
    const profile::Range range(Activity::collective, [&] { return description(c, 1); });
    if (c.in.data == nullptr || c.in.data == c.out.data || c.in.numel() == 0) return {};
    if (c.out.device.kind == Device::cpu)
      std::memmove(c.out.data, c.in.data, c.in.bytes());
    else
      accelerator(c.out.device).copy(flat(c.out), flat(c.in));
    return {};
  }
  bool serves(Device) const override { return true; }

 private:
  static View flat(const View& v) { return view_over(v.data, v.dtype, {v.numel()}, v.device); }
  void check_alive() {
    const std::lock_guard lock(mutex_);
    check(aborted_.empty(), aborted_);
  }

  std::mutex mutex_;
  std::string aborted_;
};

}  // namespace

std::unique_ptr<Communicator> self_communicator(CommunicatorOptions options) {
  return std::make_unique<SelfCommunicator>(options);
}

}  // namespace loom
