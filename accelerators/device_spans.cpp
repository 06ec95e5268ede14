#include <loom/accelerators/device_spans.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/host_clock.h>

namespace loom::profile {

namespace {

constexpr int64_t anchor_nanoseconds = 50'000'000;  // the device tells 50 ms to a few nanoseconds
constexpr size_t first_look = 1024, look_every = 64, most_pending = size_t{1} << 16;
constexpr int offset_tries = 5;

std::string track_of(Device device, const void* stream) {
  const std::pair<Lane, const char*> lanes[] = {
      {Lane::compute, "compute"}, {Lane::copy, "copies"}, {Lane::communication, "collectives"}};
  for (const auto& [lane, name] : lanes)
    if (accelerator(device).stream(lane) == stream) return str(device, " ", name);
  return str(device, " other stream");
}

// Milliseconds after the base; none: not come yet.
std::optional<double> time_of(DeviceSpans::Anchor& anchor, DeviceClock& clock, bool wait) {
  if (anchor.at) return anchor.at;
  const std::optional<double> before = time_of(*anchor.before, clock, wait);
  if (!before) return std::nullopt;
  const std::optional<double> since = clock.milliseconds(anchor.before->moment.get(), anchor.moment.get(), wait);
  if (!since) return std::nullopt;
  anchor.before.reset();
  return anchor.at = *before + *since;
}

}  // namespace

// The latest of the stream, or, where that was long ago, this range's begin.
std::shared_ptr<DeviceSpans::Anchor> DeviceSpans::anchor(const Begun& begun, int64_t now) {
  auto device = std::ranges::find(devices_, begun.device, &Clocked::device);
  if (device == devices_.end()) {
    auto base = std::make_shared<Anchor>(Anchor{begun.from, nullptr, 0.0, now});
    devices_.push_back({begun.device, base, {{begun.stream, base}}});
    return base;
  }
  auto latest = std::ranges::find(device->streams, begun.stream, &std::pair<void*, std::shared_ptr<Anchor>>::first);
  if (latest == device->streams.end())
    latest = device->streams.insert(latest, {begun.stream, device->base});
  else if (now - latest->second->host < anchor_nanoseconds)
    return latest->second;
  latest->second = std::make_shared<Anchor>(Anchor{begun.from, latest->second, std::nullopt, now});
  return latest->second;
}

DeviceSpans::Begun DeviceSpans::begin(Device device, void* stream) {
  DeviceClock* const clock = accelerator(device).clock();
  if (clock == nullptr) return {};
  Begun out{device, stream != nullptr ? stream : accelerator(device).current_stream(), nullptr, nullptr};
  out.from = clock->record(out.stream);
  if (!out.from) return {};
  const std::lock_guard lock(mutex_);
  out.anchor = anchor(out, host_nanoseconds());
  return out;
}

void DeviceSpans::end(const Begun& begun, std::string name, Span span) {
  if (!begun.from) return;
  std::shared_ptr<void> to = accelerator(begun.device).clock()->record(begun.stream);
  if (!to) return;
  const std::lock_guard lock(mutex_);
  if (finished_) return;
  if (pending_.size() >= most_pending || room_->take(1) == 0) {
    ++dropped_;
    return;
  }
  Measured measured{begun.device, std::move(name), track_of(begun.device, begun.stream), std::move(span)};
  pending_.push_back({begun, std::move(to), std::move(measured)});
  if (pending_.size() >= first_look && pending_.size() % look_every == 0) collect(false);
}

bool DeviceSpans::measure(Pending& p, bool wait) {
  DeviceClock& clock = *accelerator(p.begun.device).clock();
  const std::optional<double> start = time_of(*p.begun.anchor, clock, wait);
  if (!start) return false;
  void* const moment = p.begun.anchor->moment.get();
  const std::optional<double> to = clock.milliseconds(moment, p.to.get(), wait);
  if (!to) return false;
  const std::optional<double> from = clock.milliseconds(moment, p.begun.from.get(), wait);
  p.measured.from = *start + from.value_or(0);
  p.measured.to = *start + *to;
  return from.has_value();
}

void DeviceSpans::collect(bool wait) {
  for (; !pending_.empty(); pending_.pop_front()) {
    try {
      if (!measure(pending_.front(), wait)) return;
      measured_.push_back(std::move(pending_.front().measured));
    } catch (const Error&) {  // the device has failed, or goes with the process: others say so
      ++dropped_;
    }
  }
}

// What to add to milliseconds after the base to have the host's time; none: the device does not tell.
std::optional<double> DeviceSpans::host_offset(const Clocked& clocked) const {
  DeviceClock& clock = *accelerator(clocked.device).clock();
  std::optional<double> best;
  double narrowest = std::numeric_limits<double>::infinity();
  for (const auto& [stream, latest] : clocked.streams) {
    for (int i = 0; i < offset_tries; ++i) {
      const std::optional<double> at = time_of(*latest, clock, true);
      const int64_t before = host_nanoseconds();
      const std::shared_ptr<void> now = clock.record(stream);
      if (!at || !now) break;
      const std::optional<double> since = clock.milliseconds(latest->moment.get(), now.get(), true);
      const int64_t after = host_nanoseconds();
      const auto width = static_cast<double>(after - before);
      if (!since || width >= narrowest) continue;
      narrowest = width;
      best = (static_cast<double>(before) + width / 2) / 1e6 - (*at + *since);
    }
  }
  return best;
}

void DeviceSpans::finish(SpanLog& log) {
  const std::lock_guard lock(mutex_);
  finished_ = true;
  collect(true);
  for (const Clocked& clocked : devices_) {
    std::optional<double> offset;
    try {
      offset = host_offset(clocked);
    } catch (const Error&) {  // as in collect
    }
    for (Measured& m : measured_) {
      if (m.device != clocked.device) continue;
      if (!offset) {
        ++dropped_;
        continue;
      }
      m.span.begin = std::llround((m.from + *offset) * 1e6);
      m.span.end = std::llround((m.to + *offset) * 1e6);
      log.add(m.name, m.track, std::move(m.span));
    }
  }
  measured_.clear();
  devices_.clear();
}

uint64_t DeviceSpans::dropped() const {
  const std::lock_guard lock(mutex_);
  return dropped_;
}

}  // namespace loom::profile
