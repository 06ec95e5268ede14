#include <loom/distributed/staged_messages.h>

#include <utility>

#include <loom/distributed/pinned_block.h>

namespace loom {

namespace {

class Sent final : public Work::State {
 public:
  Sent(std::shared_ptr<std::byte> memory, Work posted, std::shared_ptr<const Work> send)
      : memory_(std::move(memory)), posted_(std::move(posted)), send_(std::move(send)) {}
  void wait() override {
    posted_.wait();
    send_->wait();
  }
  bool done() const override { return posted_.done() && send_->done(); }

 private:
  const std::shared_ptr<std::byte> memory_;
  const Work posted_;
  const std::shared_ptr<const Work> send_;
};

// When it has arrived, whoever asks first sends it on to the device.
class Received final : public Work::State {
 public:
  Received(const View& out, std::shared_ptr<std::byte> memory, Event ready, Work arrived)
      : out_(out), memory_(std::move(memory)), ready_(std::move(ready)), arrived_(std::move(arrived)) {}
  void wait() override {
    arrived_.wait();
    current_stream(out_.device).wait(stored());
  }
  bool done() const override {
    if (!arrived_.done()) return false;
    try {
      arrived_.wait();
    } catch (const Error&) {
      return true;  // wait() tells
    }
    return stored().is_done();
  }

 private:
  const Event& stored() const {
    const std::lock_guard lock(mutex_);
    if (!stored_) {
      const Stream copies = stream(out_.device, Lane::copy);
      const StreamScope scope(copies);
      copies.wait(ready_);
      if (out_.numel() > 0)
        accelerator(out_.device).copy_in_stream(out_, view_over(memory_.get(), out_.dtype, out_.shape));
      stored_ = copies.record();
    }
    return *stored_;
  }

  const View out_;
  const std::shared_ptr<std::byte> memory_;
  const Event ready_;
  const Work arrived_;
  mutable std::mutex mutex_;
  mutable std::optional<Event> stored_;
};

}  // namespace

StagedMessages::StagedMessages(Communicator& ranks, Device device, bool threads) : ranks_(ranks), device_(device) {
  if (threads) sends_ = std::make_unique<TaskThread>(0, "messages of GPUs");
}

Work StagedMessages::post(const Collective& message) {
  return message.kind == Collective::send ? send(message) : recv(message);
}

Work StagedMessages::send(const Collective& message) {
  const auto memory = pinned_block(device_, std::max<size_t>(message.in.bytes(), 1));
  const View data = view_over(memory.get(), message.in.dtype, message.in.shape);
  const Stream copies = stream(device_, Lane::copy);
  copies.wait(current_stream(device_).record());
  if (data.numel() > 0) {
    const StreamScope scope(copies);
    accelerator(device_).copy_in_stream(data, message.in);
    accelerator(device_).use_by(message.in.data, copies.handle());
  }
  const auto send = std::make_shared<Work>();
  auto post = [this, data, send, fetched = copies.record(), to = message.peer, tag = message.tag] {
    fetched.synchronize();
    const std::lock_guard lock(mutex_);
    *send = ranks_.send(data, to, tag);
  };
  Work posted;
  if (sends_)
    posted = sends_->push(std::move(post));
  else
    post();
  return Work(std::make_shared<Sent>(memory, std::move(posted), send));
}

Work StagedMessages::recv(const Collective& message) {
  const auto memory = pinned_block(device_, std::max<size_t>(message.out.bytes(), 1));
  const View data = view_over(memory.get(), message.out.dtype, message.out.shape);
  Event ready = current_stream(device_).record();
  const std::lock_guard lock(mutex_);
  Work arrived = ranks_.recv(data, message.peer, message.tag);
  return Work(std::make_shared<Received>(message.out, memory, std::move(ready), std::move(arrived)));
}

}  // namespace loom
