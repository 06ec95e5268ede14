#include <loom/accelerators/chrome_trace.h>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include <loom/accelerators/atomic_file.h>
#include <loom/accelerators/error.h>
#include <loom/accelerators/host_clock.h>
#include <loom/accelerators/recording.h>

namespace loom::profile {

namespace {

// Bytes of the UTF-8 sequence that text begins with; 0: none.
size_t sequence_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  const size_t length = first < 0x80   ? 1
                        : first < 0xc2 ? 0
                        : first < 0xe0 ? 2
                        : first < 0xf0 ? 3
                        : first < 0xf5 ? 4
                                       : 0;
  if (length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  if (length < 3) return length;
  const bool overlong = (first == 0xe0 && byte(1) < 0xa0) || (first == 0xf0 && byte(1) < 0x90);
  const bool outside = (first == 0xed && byte(1) >= 0xa0) || (first == 0xf4 && byte(1) >= 0x90);
  return overlong || outside ? 0 : length;
}

// Unix time minus the host's clock, from the closest pair of readings.
int64_t unix_offset() {
  int64_t best = 0, narrowest = std::numeric_limits<int64_t>::max();
  for (int i = 0; i < 16; ++i) {
    const int64_t before = host_nanoseconds();
    const int64_t now = std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch()).count();
    const int64_t after = host_nanoseconds();
    if (after - before >= narrowest) continue;
    narrowest = after - before;
    best = now - (before + narrowest / 2);
  }
  return best;
}

// Microseconds with three digits after the point, exactly.
std::string microseconds(int64_t nanoseconds) {
  const int64_t whole = nanoseconds / 1000;
  const std::string digits = std::to_string(1000 + nanoseconds % 1000);
  return str(whole, ".", std::string_view(digits).substr(1));
}

class Writer {
 public:
  Writer(const std::filesystem::path& path, Recording& recording)
      : file_(path, "chrome trace"), recording_(recording), threads_(recording.threads()) {}

  void write() {
    const SpanLog& devices = recording_.device_log();
    begin_file();
    for (const Recording::Thread& thread : threads_) {
      const int rank = rank_or_process(thread.identity->rank());
      bool any = false;
      thread.log->visit([&](const Span& span) {
        any = true;
        if (span.kind == Span::counter)
          counter(rank, span);
        else if (span.track == nullptr)
          work(rank, thread.log->thread(), span, span.end);
        else
          on_track_[{rank_or_process(span.rank), *span.track}].push_back(&span);
      });
      if (any) name_track(rank, thread.log->thread(), thread.identity->name(), 0);
    }
    devices.visit([&](const Span& span) { on_track_[{rank_or_process(span.rank), *span.track}].push_back(&span); });
    write_tracks();
    put("\n]}\n");
    flush();
    file_.commit();
  }

 private:
  static constexpr int64_t first_track = 1'000'000'000;  // beyond the system's numbers of threads
  static constexpr size_t buffer_bytes = size_t{1} << 20;

  static int rank_or_process(int rank) { return rank >= 0 ? rank : process_rank(); }

  // Times count from a moment that ranks have in common: the beginning of a period of 90 days of Unix time, so that
  // nanoseconds fit the 53 bits that readers have.
  void begin_file() {
    constexpr int64_t period = int64_t{90} * 24 * 3600 * 1'000'000'000;
    const int64_t offset = unix_offset();
    const int64_t base = (host_nanoseconds() + offset) / period * period;
    shift_ = offset - base;
    std::array<char, 256> host{};
    ::gethostname(host.data(), host.size() - 1);
    host_ = host.data();
    put(str("{\"schemaVersion\": 1, \"displayTimeUnit\": \"ms\", \"baseTimeNanoseconds\": ", base,
            ",\n\"otherData\": {", "\"host\": ", json_string(host_), ", \"rank\": ", process_rank(),
            ", \"pid\": ", ::getpid(), ", \"steady_to_unix_nanoseconds\": ", offset,
            ", \"dropped\": ", recording_.dropped(), "},\n\"traceEvents\": ["));
  }

  void put(std::string_view text) {
    buffer_ += text;
    if (buffer_.size() >= buffer_bytes) flush();
  }
  void flush() {
    file_.write(buffer_);
    buffer_.clear();
  }
  void event(std::string_view members) {
    put(std::exchange(any_event_, true) ? ",\n{" : "\n{");
    put(members);
    put("}");
  }
  std::string time(int64_t nanoseconds) const { return microseconds(nanoseconds + shift_); }

  void work(int rank, int64_t track, const Span& span, int64_t end) {
    const std::string where = str("\"pid\": ", rank, ", \"tid\": ", track, ", \"ts\": ", time(span.begin));
    event(str("\"ph\": \"X\", \"cat\": \"", to_string(span.activity), "\", \"name\": ", json_string(*span.name), ", ",
              where, ", \"dur\": ", microseconds(std::max<int64_t>(0, end - span.begin)), ", \"args\": {", span.args,
              "}"));
    if (span.flow == 0) return;
    const bool launched = track >= first_track;
    event(str("\"ph\": \"", launched ? "f\", \"bp\": \"e" : "s",
              "\", \"cat\": \"launch\", \"name\": \"launch\", \"id\": ", static_cast<uint64_t>(rank) << 40 | span.flow,
              ", ", where));
  }

  void counter(int rank, const Span& span) {
    event(str("\"ph\": \"C\", \"name\": ", json_string(*span.name), ", \"pid\": ", rank, ", \"ts\": ", time(span.begin),
              ", \"args\": {", span.args, "}"));
  }

  void name_track(int rank, int64_t track, const std::string& name, int64_t place) {
    if (!std::exchange(named_[rank], true)) {
      event(str("\"ph\": \"M\", \"name\": \"process_name\", \"pid\": ", rank, ", \"args\": {\"name\": ",
                json_string(str("rank ", rank, " (", host_, ", process ", ::getpid(), ")")), "}"));
      event(str("\"ph\": \"M\", \"name\": \"process_sort_index\", \"pid\": ", rank,
                ", \"args\": {\"sort_index\": ", rank, "}"));
    }
    const std::string where = str("\"pid\": ", rank, ", \"tid\": ", track);
    event(str("\"ph\": \"M\", \"name\": \"thread_name\", ", where, ", \"args\": {\"name\": ", json_string(name), "}"));
    event(str("\"ph\": \"M\", \"name\": \"thread_sort_index\", ", where, ", \"args\": {\"sort_index\": ", place, "}"));
  }

  // Spans of a track lie one inside the other or side by side; what a device measures is so but for its rounding.
  void write_tracks() {
    int64_t number = 0;
    for (auto& [place, spans] : on_track_) {
      const auto& [rank, name] = place;
      const int64_t track = first_track + number++;
      name_track(rank, track, name, number);
      std::ranges::stable_sort(spans, [](const Span* a, const Span* b) {
        return a->begin != b->begin ? a->begin < b->begin : a->end > b->end;
      });
      std::vector<int64_t> open;
      for (const Span* const span : spans) {
        while (!open.empty() && open.back() <= span->begin) open.pop_back();
        const int64_t end = open.empty() ? span->end : std::min(span->end, open.back());
        work(rank, track, *span, end);
        open.push_back(end);
      }
    }
  }

  AtomicFile file_;
  Recording& recording_;
  const std::vector<Recording::Thread> threads_;
  std::string host_, buffer_;
  bool any_event_ = false;
  int64_t shift_ = 0;
  std::map<int, bool> named_;
  std::map<std::pair<int, std::string>, std::vector<const Span*>> on_track_;
};

}  // namespace

std::string json_string(std::string_view text) {
  constexpr std::string_view hex = "0123456789abcdef";
  std::string out = "\"";
  while (!text.empty()) {
    const size_t length = sequence_length(text);
    const char c = text.front();
    if (length == 0) {
      out += "\\ufffd";
    } else if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00";
      out += hex[static_cast<size_t>(c) >> 4];
      out += hex[static_cast<size_t>(c) & 15];
    } else {
      out += text.substr(0, length);
    }
    text.remove_prefix(std::max<size_t>(1, length));
  }
  return out += '"';
}

void write_chrome_trace(const std::filesystem::path& path, Recording& recording) { Writer(path, recording).write(); }

}  // namespace loom::profile
