// SPDX-License-Identifier: Apache-2.0
// A trace as its reader sees it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace loom::testing {

struct TraceEvent {
  std::string phase, category, name, track;  // X, op, matmul, main
  int64_t rank = 0, thread = 0;
  int64_t begin = 0, end = 0;  // nanoseconds
  nlohmann::json args, id;

  bool holds(const TraceEvent& inner) const {
    return rank == inner.rank && thread == inner.thread && begin <= inner.begin && inner.end <= end;
  }
};

class TraceFile {
 public:
  explicit TraceFile(const std::filesystem::path& path) {
    std::ifstream file(path);
    all_ = nlohmann::json::parse(file);
    std::map<std::pair<int64_t, int64_t>, std::string> names;
    for (const auto& e : all_["traceEvents"])
      if (e["name"] == "thread_name") names[{e["pid"], e["tid"]}] = e["args"]["name"];
    for (const auto& e : all_["traceEvents"]) {
      TraceEvent out{.phase = e["ph"], .category = e.value("cat", ""), .name = e["name"], .track = {}};
      out.rank = e["pid"];
      out.thread = e.value("tid", int64_t{0});
      out.track = names[{out.rank, out.thread}];
      out.begin = std::llround(e.value("ts", 0.0) * 1000);
      out.end = out.begin + std::llround(e.value("dur", 0.0) * 1000);
      out.args = e.value("args", nlohmann::json::object());
      out.id = e.value("id", nlohmann::json());
      events_.push_back(std::move(out));
    }
  }

  const nlohmann::json& json() const { return all_; }
  const std::vector<TraceEvent>& events() const { return events_; }
  // Spans of this name, in the order of time.
  std::vector<TraceEvent> spans(const std::string& name, const std::string& category = "") const {
    std::vector<TraceEvent> out;
    for (const TraceEvent& e : events_)
      if (e.phase == "X" && e.name == name && (category.empty() || e.category == category)) out.push_back(e);
    std::ranges::stable_sort(out, {}, &TraceEvent::begin);
    return out;
  }
  // On each track spans lie inside one another or side by side.
  bool is_nested() const {
    std::map<std::pair<int64_t, int64_t>, std::vector<const TraceEvent*>> tracks;
    for (const TraceEvent& e : events_)
      if (e.phase == "X") tracks[{e.rank, e.thread}].push_back(&e);
    for (auto& [place, spans] : tracks) {
      std::ranges::stable_sort(spans, [](const TraceEvent* a, const TraceEvent* b) {
        return a->begin != b->begin ? a->begin < b->begin : a->end > b->end;
      });
      std::vector<int64_t> open;
      for (const TraceEvent* e : spans) {
        while (!open.empty() && open.back() <= e->begin) open.pop_back();
        if (!open.empty() && e->end > open.back()) return false;
        open.push_back(e->end);
      }
    }
    return true;
  }

 private:
  nlohmann::json all_;
  std::vector<TraceEvent> events_;
};

}  // namespace loom::testing
