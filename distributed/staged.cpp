#include <loom/distributed/staged.h>

#include <exception>
#include <utility>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/sync_debug.h>
#include <loom/distributed/forward.h>
#include <loom/distributed/mpi.h>
#include <loom/distributed/staged_messages.h>
#include <loom/distributed/staged_pieces.h>
#include <loom/distributed/task_thread.h>

namespace loom {
namespace {

using namespace std::chrono_literals;

constexpr auto patience_with_own_error = 1s;

// A collective that the thread runs, and then the device.
class InTurn final : public Work::State {
 public:
  InTurn(Device device, Work run, std::shared_ptr<const Event> done)
      : device_(device), run_(std::move(run)), done_(std::move(done)) {}
  void wait() override {
    note_host_wait("ranks that communicate by way of the host's memory");
    run_.wait();
    current_stream(device_).wait(*done_);
  }
  bool done() const override { return run_.done() && done_->is_done(); }

 private:
  const Device device_;
  const Work run_;
  const std::shared_ptr<const Event> done_;
};

// MPI may have been started for one thread only; then all is done where it is issued.
bool takes_threads(const Communicator& host) { return host.name() != "mpi" || mpi_takes_threads(); }

class StagedCommunicator final : public Communicator {
 public:
  StagedCommunicator(std::shared_ptr<Communicator> host, Device device, const StagedOptions& options)
      : Communicator(host->rank(), host->size(), options.communicator),
        host_(std::move(host)),
        device_(device),
        piece_bytes_(options.piece_bytes),
        ranks_(host_->split(0, host_->rank())),
        messages_(*ranks_, device, takes_threads(*host_)) {
    if (takes_threads(*host_)) thread_ = std::make_unique<TaskThread>(0, "collectives of GPUs");
  }

  // By an exception the other ranks may never come to what is under way.
  ~StagedCommunicator() override {
    if (std::uncaught_exceptions() == exceptions_) return;
    const auto until = std::chrono::steady_clock::now() + patience_with_own_error;
    while (!idle() && std::chrono::steady_clock::now() < until) std::this_thread::sleep_for(1ms);
    if (!idle()) host_->abort("left by an exception");
  }

  std::string_view name() const override { return "staged"; }
  bool serves(Device device) const override { return device.kind == Device::cpu || device == device_; }
  std::string node() override { return host_->node(); }
  std::shared_ptr<void> allocate(size_t bytes, Device device) override {
    return device.kind == Device::cpu ? host_->allocate(bytes) : Communicator::allocate(bytes, device);
  }
  void abort(const std::string& reason) noexcept override { host_->abort(reason); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    std::shared_ptr<Communicator> part = host_->split(color, key);
    if (!part) return nullptr;
    return std::make_unique<StagedCommunicator>(std::move(part), device_, StagedOptions{options(), piece_bytes_});
  }

 protected:
  Work submit(Collective c) override {
    if (!on_gpu(c)) return forward_to(*host_, c);
    check(!accelerator(device_).is_capturing(), to_string(c.kind),
          ": goes through the host's memory, for which a captured ",
          "step does not wait; collectives are captured over NCCL");
    if (c.between_two()) return messages_.post(c);
    if (is_empty(c)) return {};
    const Event ready = current_stream(device_).record();
    const auto done = std::make_shared<Event>();
    auto run = [this, c = std::move(c), ready, done] {
      const profile::Range range(Activity::collective, [&] { return description(c, size()); });
      *done = run_in_pieces(*ranks_, c, device_, ready, piece_bytes_);
    };
    if (thread_) return Work(std::make_shared<InTurn>(device_, thread_->push(std::move(run)), done));
    run();
    return Work(std::make_shared<InTurn>(device_, Work(), done));
  }

 private:
  bool idle() const { return (!thread_ || thread_->idle()) && messages_.idle(); }

  const int exceptions_ = std::uncaught_exceptions();
  const std::shared_ptr<Communicator> host_;
  const Device device_;
  const int64_t piece_bytes_;
  const std::unique_ptr<Communicator> ranks_;  // the same ones, for what the threads do
  StagedMessages messages_;
  std::unique_ptr<TaskThread> thread_;
};

}  // namespace

std::unique_ptr<Communicator> staged_communicator(std::shared_ptr<Communicator> host, Device device,
                                                  const StagedOptions& options) {
  check(options.piece_bytes > 0, "staged: piece_bytes is ", options.piece_bytes, ", expected more than 0");
  return std::make_unique<StagedCommunicator>(std::move(host), device, options);
}

}  // namespace loom
