// A step that the device repeats by itself (CUDA graphs): recorded once, then started with one call, where launching
// its kernels one by one would keep the host busy for longer than the device. docs/graphs.md.
//
//   DeviceGraph graph(device);
//   for (auto [x, y] : loader) {
//     input.copy_(x);  target.copy_(y);      // the step's inputs stay where they are
//     graph.run([&] {                        // as it is, a few times; then recorded; then repeated
//       loss = cross_entropy(net(input), target);
//       loss.backward();
//       adamw.step();
//       adamw.zero_grad();
//     });
//   }
//
// What the step reads is what those tensors hold when it is repeated; what it computes (loss) lies where it was
// recorded, and is overwritten by the next. Its numbers are those of the step as it is: random numbers go on, learning
// rates are the optimizer's present ones. The host must not wait for the device in it (item(), to(cpu), a choice that
// depends on a result): that is an Error, which names the op. On a CPU nothing is recorded and the step is called.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include <loom/accelerators/accelerator.h>
#include <loom/tensor/context.h>
#include <loom/tensor/tensor.h>

namespace loom {

struct DeviceGraphOptions {
  int warm_up = 3;  // calls of run() before the one that records: libraries choose kernels, optimizers make their state
};

class DeviceGraph {
 public:
  explicit DeviceGraph(Device device, const DeviceGraphOptions& options = {});
  ~DeviceGraph();
  DeviceGraph(const DeviceGraph&) = delete;
  DeviceGraph& operator=(const DeviceGraph&) = delete;

  // Does the step once, in one way or another. The function of the first calls has to be that of the later ones.
  void run(const std::function<void()>& step);

  // By hand. Records `work` without doing it, in place of what was recorded before; an exception leaves nothing
  // recorded. Does not warm up.
  void capture(const std::function<void()>& work);
  // Into this thread's stream of the device; the host does not wait. Throws Error before capture.
  void replay();
  bool is_captured() const { return captured_ != nullptr || on_host_; }
  // Gives the graph's memory back, but for tensors that are still held. run() warms up again.
  void reset();

  Device device() const { return device_; }

 private:
  Device device_;
  DeviceGraphOptions options_;
  int calls_ = 0;                  // of run() since the last reset
  uint64_t drawn_ = 0;             // blocks of random numbers a replay
  std::function<void()> on_host_;  // a CPU's
  std::unique_ptr<GraphCapture> capture_;
  std::unique_ptr<Captured> captured_;  // goes first: it waits
};

// What is being recorded, or has been: for whoever has something to do at each replay (context().capture).
class GraphCapture {
 public:
  GraphCapture(Device device, void* aside);
  Device device() const { return device_; }
  void* aside() const { return aside_; }

  // Called on the host before and after each replay is put into this thread's stream, in order.
  void before_replay(std::function<void()> action) { before_.push_back(std::move(action)); }
  void after_replay(std::function<void()> action) { after_.push_back(std::move(action)); }
  // Something that is there until the graph has gone.
  void keep(std::shared_ptr<void> owner) { kept_.push_back(std::move(owner)); }
  // `count` words of the device's memory, in which each replay finds what `fill` wrote into its argument before it.
  const uint64_t* words(size_t count, std::function<void(std::span<uint64_t>)> fill);

  void prepare_replay();
  void follow_replay();

 private:
  struct Filled {
    size_t count;
    std::function<void(std::span<uint64_t>)> fill;
  };
  Device device_;
  void* aside_;
  Tensor memory_;  // i64
  std::vector<Filled> filled_;
  std::vector<uint64_t> values_;
  std::vector<std::function<void()>> before_, after_;
  std::vector<std::shared_ptr<void>> kept_;
};

// For a scope, what this thread asks of the device is done now and once, in memory that stays, though a graph is being
// captured: an optimizer's state is made so. Nothing where none is.
class OutsideCapture {
 public:
  OutsideCapture();
  ~OutsideCapture();
  OutsideCapture(const OutsideCapture&) = delete;
  OutsideCapture& operator=(const OutsideCapture&) = delete;

 private:
  Accelerator* accelerator_ = nullptr;
  void* previous_ = nullptr;
};

// Throws Error where the host would have to wait for a device that is recording.
void check_may_wait(std::string_view op, Device device);
// Throws Error where a graph is being captured: the host's memory is not read again by a replay.
void check_may_read_host(std::string_view op, Device to);

// Throws Error where random numbers that the host draws would be the same at each replay.
void check_drawn_on_device(std::string_view op, Device device);

}  // namespace loom
