#include <loom/tensor/device_graph.h>

#include <utility>

#include <loom/accelerators/profile.h>
#include <loom/tensor/create.h>

namespace loom {

namespace {

constexpr size_t most_words = 4096;

// For a scope, what is drawn counts from the place that `base` tells, and casts of the surroundings are not taken over.
class CaptureScope {
 public:
  explicit CaptureScope(GraphCapture& capture) : context_(context()), before_(context_.generator) {
    check(context_.capture == nullptr, "DeviceGraph: a graph is being captured already");
    outer_casts_ = std::move(context_.cast_cache);
    context_.capture = &capture;
  }
  ~CaptureScope() {
    context_.capture = nullptr;
    context_.generator = before_;
    context_.cast_cache = std::move(outer_casts_);
  }
  CaptureScope(const CaptureScope&) = delete;
  CaptureScope& operator=(const CaptureScope&) = delete;

  void draw_from(const uint64_t* base) { context_.generator = {0, 0, base_ = base}; }
  uint64_t drawn() const {
    check(context_.generator.base == base_,
          "DeviceGraph: the step seeds the random numbers; seed them before it, as each replay goes on in them");
    return context_.generator.offset;
  }

 private:
  Context& context_;
  Generator before_;
  std::shared_ptr<CastCache> outer_casts_;
  const uint64_t* base_ = nullptr;
};

}  // namespace

GraphCapture::GraphCapture(Device device, void* aside) : device_(device), aside_(aside) {
  const StreamScope scope(Stream(device, aside));
  memory_ = empty({static_cast<int64_t>(most_words)}, {DType::i64, device});
}

const uint64_t* GraphCapture::words(size_t count, std::function<void(std::span<uint64_t>)> fill) {
  const size_t at = values_.size();
  check(at + count <= most_words, "DeviceGraph: a step needs more than ", most_words, " numbers from the host");
  filled_.push_back({count, std::move(fill)});
  values_.resize(at + count);
  return View(memory_).as<const uint64_t>() + at;
}

void GraphCapture::prepare_replay() {
  size_t at = 0;
  for (const Filled& f : filled_) {
    f.fill(std::span(values_).subspan(at, f.count));
    at += f.count;
  }
  for (const auto& action : before_) action();
  if (!values_.empty()) accelerator(device_).write_words(View(memory_).as<uint64_t>(), values_);
}

void GraphCapture::follow_replay() {
  for (const auto& action : after_) action();
}

DeviceGraph::DeviceGraph(Device device, const DeviceGraphOptions& options) : device_(device), options_(options) {
  check(options.warm_up >= 0, "DeviceGraph: warm_up is ", options.warm_up, ", expected 0 or more");
}

DeviceGraph::~DeviceGraph() = default;

void DeviceGraph::reset() {
  captured_.reset();
  capture_.reset();
  on_host_ = nullptr;
  calls_ = 0;
}

void DeviceGraph::run(const std::function<void()>& step) {
  if (calls_ < options_.warm_up || device_.kind == Device::cpu) {
    ++calls_;
    return step();
  }
  if (!is_captured()) capture(step);
  replay();
}

void DeviceGraph::capture(const std::function<void()>& work) {
  check(context().capture == nullptr, "DeviceGraph: a graph is being captured already");
  const profile::Range range(Activity::op, "DeviceGraph.capture");
  captured_.reset();
  capture_.reset();
  std::unique_ptr<GraphCapture> capture;  // what it keeps goes after the graph
  std::unique_ptr<Captured> captured = accelerator(device_).capture();
  if (!captured) {
    on_host_ = work;
    return;
  }
  capture = std::make_unique<GraphCapture>(device_, captured->aside());
  uint64_t drawn = 0;
  {
    CaptureScope scope(*capture);
    scope.draw_from(capture->words(3, [](std::span<uint64_t> to) {
      const Generator& now = context().generator;
      to[0] = now.seed;
      to[1] = 0;
      to[2] = now.offset;
    }));
    work();
    drawn = scope.drawn();
  }
  captured->end();
  drawn_ = drawn;
  captured_ = std::move(captured);
  capture_ = std::move(capture);
}

void DeviceGraph::replay() {
  check(is_captured(), "DeviceGraph: replay() before capture()");
  const profile::Range range(Activity::op,
                             [this] { return profile::Description{.name = "DeviceGraph.replay", .device = device_}; });
  if (on_host_) return on_host_();
  capture_->prepare_replay();
  context().generator.offset += drawn_;
  captured_->replay();
  capture_->follow_replay();
}

OutsideCapture::OutsideCapture() {
  const GraphCapture* const capture = context().capture;
  if (capture == nullptr) return;
  accelerator_ = &accelerator(capture->device());
  previous_ = accelerator_->current_stream();
  accelerator_->set_current_stream(capture->aside());
}

OutsideCapture::~OutsideCapture() {
  if (accelerator_ != nullptr) accelerator_->set_current_stream(previous_);
}

void check_may_wait(std::string_view op, Device device) {
  if (device.kind == Device::cpu || !accelerator(device).is_capturing()) return;
  fail(op, ": the host would wait for ", device, ", where a graph is being captured: nothing of it has been done yet; ",
       "read results after replay()");
}

void check_may_read_host(std::string_view op, Device to) {
  if (to.kind == Device::cpu || !accelerator(to).is_capturing()) return;
  fail(op, ": memory of the host goes to ", to, ", where a graph is being captured: a replay would not read it again; ",
       "copy it before the step, into a tensor that stays");
}

void check_drawn_on_device(std::string_view op, Device device) {
  check(device.kind != Device::cpu || context().generator.base == nullptr, op,
        ": random numbers on the host while a graph is captured: each replay would have the same; draw them on the ",
        "device");
}

}  // namespace loom
