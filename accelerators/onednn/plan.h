// Primitives, made once for each shape and kept, and how a call is split: into jobs for Loom's threads, each of which
// runs a primitive alone. The library's own threads would fight with Loom's for cores.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include <loom/accelerators/onednn/library.h>

namespace loom::onednn {

struct Operand {
  int argument;  // DNNL_ARG_...
  View view;
  enum class Layout : uint8_t { given, chosen } layout = Layout::given;  // chosen: by the primitive
  bool written = false;
};

// One primitive with the reorders to the layouts that it wants and back. May be run by several threads at once.
class Plan {
 public:
  Plan() = default;  // of nothing: oneDNN cannot do it, or only by its plain loops
  Plan(const dnnl::primitive_desc& made, std::span<const Operand> operands);
  explicit operator bool() const { return static_cast<bool>(primitive_); }
  void run(std::span<const Operand> operands) const;

 private:
  struct Place {
    dnnl::memory::desc outside, inside;
    dnnl::primitive between;
    int64_t offset = -1;  // in the workspace; -1: it is used where it lies
  };
  Place place_of(const dnnl::primitive_desc& made, const Operand& operand);
  int64_t reserve(size_t bytes);

  dnnl::primitive primitive_;
  std::vector<Place> places_;
  dnnl::memory::desc scratchpad_;
  int64_t scratchpad_offset_ = 0, workspace_ = 0;
};

using Make = std::function<dnnl::primitive_desc(const dnnl::primitive_attr& attr)>;

// Parts of one call, which together are done or left alone.
class Jobs {
 public:
  // False where there is no primitive. `key` and the operands' layouts say what make(attributes) makes.
  bool add(std::vector<int64_t> key, std::vector<Operand> operands, dnnl::primitive_attr attr, const Make& make);
  void run() const;

 private:
  struct Job {
    std::shared_ptr<const Plan> plan;
    std::vector<Operand> operands;
  };
  std::vector<Job> jobs_;
};

struct Range {
  int64_t begin, end;
};
// [0, extent) in at most `parts` of equal length but the last, whose ends are multiples of `unit`.
std::vector<Range> cut(int64_t extent, int64_t parts, int64_t unit);
View narrowed(View x, int dim, Range range);

}  // namespace loom::onednn
