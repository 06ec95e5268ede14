// Convolutions: images and weights lie as they do for everybody else; layouts of blocks are the library's to choose,
// and reorders to them and back part of a call.
#include <algorithm>
#include <utility>

#include <loom/accelerators/cpu.h>
#include <loom/accelerators/host_memory.h>
#include <loom/accelerators/onednn.h>
#include <loom/accelerators/onednn/plan.h>
#include <loom/accelerators/profile.h>
#include <loom/accelerators/threads.h>

namespace loom {
using namespace onednn;

namespace {

// Parts of images bring the weights to the library's layout again, parts of channels the images too: where images are
// few.
constexpr int64_t most_parts = 256, parts_with_channels = 16;
constexpr auto how = dnnl::algorithm::convolution_direct;  // Winograd's errors are larger, and no promise of ours
constexpr auto chosen = Operand::Layout::chosen;

enum class Pass : uint8_t { forward = 1, grad_input, grad_weight };

// y = x * w + bias: of what is written y, x or w, by the pass. w [outputs, channels / groups, height, width].
struct Conv {
  Pass pass;
  View y, x, w, bias;
  ConvGeometry g;
};

int64_t flops_of(const Conv& c) { return 2 * c.y.numel() * c.w.shape[1] * c.w.shape[2] * c.w.shape[3]; }

// Where the library took several times as long as ours.
bool is_slow(const Conv& c) {
  constexpr int64_t few = 8;
  if (c.pass == Pass::grad_input) return c.g.groups == 1 && c.x.shape[1] < few;
  return c.pass == Pass::grad_weight && c.g.groups > 1 && c.w.shape[1] > 1;
}

bool suits(const Conv& c) {
  if (!type_of(c.x.dtype) || c.x.numel() == 0 || c.w.numel() == 0) return false;
  if (c.bias.data != nullptr && !c.bias.is_contiguous()) return false;  // the library does not look at its stride
  return limits().all || (flops_of(c) >= limits().least_flops && !is_slow(c));
}

// As the library wants the weights of groups: [groups, outputs / groups, ...].
View grouped(View w, int64_t groups) {
  if (groups == 1) return w;
  w.shape.insert(0, groups);
  w.strides.insert(0, w.strides[0] * (w.shape[1] / groups));
  w.shape[1] /= groups;
  return w;
}

struct Geometry {
  dnnl::memory::dims stride, dilation, padding;
  explicit Geometry(const ConvGeometry& g)
      : stride(g.stride.begin(), g.stride.end()),
        dilation{g.dilation[0] - 1, g.dilation[1] - 1},
        padding(g.padding.begin(), g.padding.end()) {}
};

dnnl::memory::desc any_layout(const View& x, DType dtype) {
  return {dnnl::memory::dims(x.shape.begin(), x.shape.end()), type_of(dtype).value(), dnnl::memory::format_tag::any};
}

dnnl::primitive_desc made(const Conv& c, const dnnl::primitive_attr& attr) {
  const auto x = any_layout(c.x, c.x.dtype), y = any_layout(c.y, c.x.dtype), w = any_layout(c.w, c.x.dtype);
  const Geometry g(c.g);
  const auto forward = [&](const dnnl::memory::desc& bias) {
    return described<dnnl::convolution_forward>(attr, dnnl::prop_kind::forward_training, how, x, w, bias, y, g.stride,
                                                g.dilation, g.padding, g.padding);
  };
  if (c.pass == Pass::forward) return forward(c.bias.data != nullptr ? desc_of(c.bias) : dnnl::memory::desc());
  if (c.pass == Pass::grad_input)
    return described_after<dnnl::convolution_backward_data>(forward({}), attr, how, x, w, y, g.stride, g.dilation,
                                                            g.padding, g.padding);
  const auto dw = any_layout(c.w, c.w.dtype);  // may be a sum in f32
  return described_after<dnnl::convolution_backward_weights>(forward({}), attr, how, x, dw, y, g.stride, g.dilation,
                                                             g.padding, g.padding);
}

std::vector<Operand> operands_of(const Conv& c) {
  if (c.pass == Pass::grad_input)
    return {{DNNL_ARG_DIFF_DST, c.y, chosen}, {DNNL_ARG_WEIGHTS, c.w, chosen}, {DNNL_ARG_DIFF_SRC, c.x, chosen, true}};
  if (c.pass == Pass::grad_weight)
    return {{DNNL_ARG_SRC, c.x, chosen}, {DNNL_ARG_DIFF_DST, c.y, chosen}, {DNNL_ARG_DIFF_WEIGHTS, c.w, chosen, true}};
  std::vector<Operand> operands = {
      {DNNL_ARG_SRC, c.x, chosen}, {DNNL_ARG_WEIGHTS, c.w, chosen}, {DNNL_ARG_DST, c.y, chosen, true}};
  if (c.bias.data != nullptr) operands.push_back({DNNL_ARG_BIAS, c.bias});
  return operands;
}

bool add(Jobs& jobs, Conv c) {
  const auto& [stride, padding, dilation, groups] = c.g;
  const std::vector<int64_t> key = {
      static_cast<int64_t>(c.pass), groups, stride[0], stride[1], padding[0], padding[1], dilation[0], dilation[1]};
  c.w = grouped(c.w, groups);
  return jobs.add(key, operands_of(c), {}, [&](const dnnl::primitive_attr& attr) { return made(c, attr); });
}

// The range of groups, or of the channels that the pass writes (of w's outputs, for a gradient of weights).
Conv part_of_channels(Conv c, Range range) {
  const auto times = [](Range r, int64_t n) { return Range{r.begin * n, r.end * n}; };
  if (c.g.groups > 1) {
    const int64_t channels = c.w.shape[1], outputs = c.w.shape[0] / c.g.groups;
    c.x = narrowed(c.x, 1, times(range, channels));
    range = times(range, outputs);
    c.g.groups = (range.end - range.begin) / outputs;
  } else if (c.pass == Pass::grad_input) {
    c.x = narrowed(c.x, 1, range);
    c.w = narrowed(c.w, 1, range);
    return c;
  }
  c.y = narrowed(c.y, 1, range);
  c.w = narrowed(c.w, 0, range);
  if (c.bias.data != nullptr) c.bias = narrowed(c.bias, 0, range);
  return c;
}

std::vector<Range> parts_of_channels(const Conv& c, int64_t parts) {
  if (c.g.groups > 1) return cut(c.g.groups, parts, 1);
  return cut(c.pass == Pass::grad_input ? c.x.shape[1] : c.w.shape[0], parts, 16);
}

// The jobs of some images, cut into ranges of channels.
bool add_images(Jobs& jobs, Conv c, Range images, int64_t parts) {
  c.x = narrowed(c.x, 0, images);
  c.y = narrowed(c.y, 0, images);
  const std::vector<Range> ranges = parts_of_channels(c, parts);
  return std::all_of(ranges.begin(), ranges.end(), [&](Range range) { return add(jobs, part_of_channels(c, range)); });
}

// Parts are as the shape has them, whatever the number of threads: bits do not depend on it. A gradient of weights is
// of all images at once.
bool run(const Conv& c, std::string_view name) {
  const int64_t parts = std::clamp<int64_t>(flops_of(c) / limits().flops_of_a_part, 1, most_parts);
  const int64_t parts_of_images = c.pass == Pass::grad_weight ? 1 : parts;
  const std::vector<Range> images = cut(c.x.shape[0], parts_of_images, 1);
  const bool few = c.pass != Pass::grad_weight || c.x.shape[0] == 1;
  const int64_t of_channels = few ? std::min(parts, parts_with_channels) / static_cast<int64_t>(images.size()) : 1;
  Jobs jobs;
  for (const Range range : images)
    if (!add_images(jobs, c, range, std::max<int64_t>(of_channels, 1))) return false;
  const profile::Range range(Activity::op, name);
  jobs.run();
  return true;
}

// Each thread's images have a sum of their own; they are added in order.
bool run_and_sum(Conv c, std::string_view name) {
  const std::vector<Range> images = cut(c.x.shape[0], num_threads(), 1);
  if (images.size() < 2) return run(c, name);
  const View dw = c.w;
  Dims shape = dw.shape;
  shape.insert(0, static_cast<int64_t>(images.size()));
  const size_t bytes = static_cast<size_t>(shape.numel()) * sizeof(float);
  const std::unique_ptr<void, decltype(&host_memory::give)> memory(host_memory::take(bytes), host_memory::give);
  const View sums = view_over(memory.get(), DType::f32, shape);
  Jobs jobs;
  for (size_t i = 0; i < images.size(); ++i) {
    c.w = view_over(sums.as<float>() + static_cast<int64_t>(i) * dw.numel(), DType::f32, dw.shape);
    if (!add_images(jobs, c, images[i], 1)) return false;
  }
  const profile::Range range(Activity::op, name);
  jobs.run();
  View total = dw;
  total.shape.insert(0, 1);
  total.strides.insert(0, 0);
  cpu_accelerator().reduce(Reduce::sum, total, sums);
  return true;
}

}  // namespace

bool onednn::conv2d(const View& y, const View& x, const View& w, const View& bias, const ConvGeometry& g) {
  const Conv c{Pass::forward, y, x, w, bias, g};
  return in_use() && suits(c) && run(c, "onednn conv2d");
}

bool onednn::conv2d_grad_input(const View& dx, const View& dy, const View& w, const ConvGeometry& g) {
  const Conv c{Pass::grad_input, dy, dx, w, {}, g};
  return in_use() && suits(c) && run(c, "onednn conv2d_grad_input");
}

bool onednn::conv2d_grad_weight(const View& dw, const View& dy, const View& x, const ConvGeometry& g) {
  const Conv c{Pass::grad_weight, dy, x, dw, {}, g};
  return in_use() && suits(c) && run_and_sum(c, "onednn conv2d_grad_weight");
}

}  // namespace loom
