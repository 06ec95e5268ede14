#include <loom/accelerators/onednn/plan.h>

#include <algorithm>
#include <map>
#include <string_view>
#include <unordered_map>
#include <utility>

#include <loom/accelerators/error.h>
#include <loom/accelerators/host_memory.h>
#include <loom/accelerators/threads.h>

namespace loom::onednn {

namespace {

class Workspace {
 public:
  explicit Workspace(int64_t bytes) : data_(host_memory::take(static_cast<size_t>(bytes))) {}
  ~Workspace() { host_memory::give(data_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  void* at(int64_t offset) const { return static_cast<std::byte*>(data_) + offset; }

 private:
  void* data_;
};

Plan plan_for(std::span<const Operand> operands, const dnnl::primitive_attr& attr, const Make& make) try {
  const OneThread alone;
  const dnnl::primitive_desc made = make(attr);
  if (std::string_view(made.impl_info_str()).starts_with("ref")) return {};
  return {made, operands};
} catch (const dnnl::error&) {  // it has no such primitive, for this processor at least
  return {};
}

thread_local bool over = false;  // the thread has ended what is its own: static objects' destructors may still compute

// Of the calling thread, so that nobody waits; code is shared, by the library's own cache.
struct Own {
  std::map<std::vector<int64_t>, std::shared_ptr<const Plan>> plans;
  const dnnl::stream stream{engine()};
  ~Own() { over = true; }
};
Own& own() {
  thread_local Own instance;
  return instance;
}

// A program has few shapes: who has more than this makes some of them again.
std::shared_ptr<const Plan> planned(const std::vector<int64_t>& key, std::span<const Operand> operands,
                                    const dnnl::primitive_attr& attr, const Make& make) {
  constexpr size_t most = 512;
  auto& kept = own().plans;
  if (const auto found = kept.find(key); found != kept.end()) return found->second;
  if (kept.size() >= most) kept.clear();
  return kept.emplace(key, std::make_shared<const Plan>(plan_for(operands, attr, make))).first->second;
}

}  // namespace

Plan::Plan(const dnnl::primitive_desc& made, std::span<const Operand> operands)
    : primitive_(made), scratchpad_(made.scratchpad_desc()) {
  for (const Operand& operand : operands) places_.push_back(place_of(made, operand));
  scratchpad_offset_ = reserve(scratchpad_.get_size());
}

int64_t Plan::reserve(size_t bytes) {
  constexpr int64_t line = 64;
  return std::exchange(workspace_, workspace_ + (static_cast<int64_t>(bytes) + line - 1) / line * line);
}

Plan::Place Plan::place_of(const dnnl::primitive_desc& made, const Operand& operand) {
  Place place{desc_of(operand.view), {}, {}};
  place.inside = place.outside;
  if (operand.layout == Operand::Layout::given) return place;
  place.inside = made.query_md(dnnl::query::exec_arg_md, operand.argument);
  if (place.inside == place.outside) return place;
  const auto& [from, to] =
      operand.written ? std::pair(place.inside, place.outside) : std::pair(place.outside, place.inside);
  place.between = dnnl::reorder(dnnl::reorder::primitive_desc(engine(), from, engine(), to));
  place.offset = reserve(place.inside.get_size());
  return place;
}

void Plan::run(std::span<const Operand> operands) const try {
  const OneThread alone;
  const Workspace workspace(workspace_);
  std::unordered_map<int, dnnl::memory> arguments;
  const auto move = [&](const Place& place, const dnnl::memory& from, const dnnl::memory& to) {
    place.between.execute(own().stream, {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
  };
  for (size_t i = 0; i < operands.size(); ++i) {
    const Place& place = places_[i];
    void* const given = operands[i].view.data;
    const bool moved = place.offset >= 0;
    const dnnl::memory inside(place.inside, engine(), moved ? workspace.at(place.offset) : given);
    if (moved && !operands[i].written) move(place, dnnl::memory(place.outside, engine(), given), inside);
    arguments.emplace(operands[i].argument, inside);
  }
  arguments.emplace(DNNL_ARG_SCRATCHPAD, dnnl::memory(scratchpad_, engine(), workspace.at(scratchpad_offset_)));
  primitive_.execute(own().stream, arguments);
  for (size_t i = 0; i < operands.size(); ++i)
    if (places_[i].offset >= 0 && operands[i].written)
      move(places_[i], arguments.at(operands[i].argument),
           dnnl::memory(places_[i].outside, engine(), operands[i].view.data));
} catch (const dnnl::error& error) {
  fail("oneDNN: ", error.what());
}

bool Jobs::add(std::vector<int64_t> key, std::vector<Operand> operands, dnnl::primitive_attr attr, const Make& make) {
  if (over) return false;
  for (const Operand& operand : operands) {
    key.push_back(operand.argument);
    key.push_back(static_cast<int64_t>(operand.view.dtype));
    key.push_back(operand.view.rank());
    key.insert(key.end(), operand.view.shape.begin(), operand.view.shape.end());
    key.insert(key.end(), operand.view.strides.begin(), operand.view.strides.end());
  }
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  attr.set_fpmath_mode(dnnl::fpmath_mode::strict);  // f32 is f32, whatever the library's environment says
  const std::shared_ptr<const Plan> plan = planned(key, operands, attr, make);
  if (*plan) jobs_.push_back({plan, std::move(operands)});
  return static_cast<bool>(*plan);
}

void Jobs::run() const {
  parallel_for(static_cast<int64_t>(jobs_.size()), 1, [&](int64_t begin, int64_t end) {
    for (const Job& job : std::span(jobs_).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)))
      job.plan->run(job.operands);
  });
}

std::vector<Range> cut(int64_t extent, int64_t parts, int64_t unit) {
  const int64_t least = (extent + parts - 1) / parts, length = (least + unit - 1) / unit * unit;
  std::vector<Range> ranges;
  for (int64_t begin = 0; begin < extent; begin += length) ranges.push_back({begin, std::min(extent, begin + length)});
  return ranges;
}

View narrowed(View x, int dim, Range range) {
  x.data = static_cast<std::byte*>(x.data) + range.begin * x.strides[dim] * static_cast<int64_t>(item_size(x.dtype));
  x.shape[dim] = range.end - range.begin;
  return x;
}

}  // namespace loom::onednn
