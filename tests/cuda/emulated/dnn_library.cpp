// SPDX-License-Identifier: Apache-2.0
// In place of cuDNN: graphs are computed node by node, in double. LOOM_CUDNN=0 switches it off, as it does the library,
// so that what stands behind it is tested too.
#include <loom/accelerators/cuda/dnn_library.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <map>
#include <string_view>
#include <thread>

#include <loom/accelerators/philox.h>

#include <queues.h>

namespace loom::cuda {

// What the library proposes: its heuristic may be wrong, and proposals may fail when they are run.
enum class Way : uint8_t { slow, refused, fails, quick };

struct Plan {
  Graph graph;
  Way way;
};

namespace {

int64_t place_of(int64_t index, const Dims& shape, const Dims& strides) {
  int64_t at = 0;
  for (int d = shape.size() - 1; d >= 0; --d) {
    at += index % shape[d] * strides[d];
    index /= shape[d];
  }
  return at;
}

class Run {
 public:
  Run(const Graph& graph, std::span<void* const> memory) : graph_(graph), values_(graph.tensors.size()) {
    size_t next = 0;
    for (const GraphTensor& t : graph.tensors)
      pointers_.push_back(t.kind == GraphTensor::Kind::memory ? memory[next++] : nullptr);
    check(next == memory.size(), "graph: ", memory.size(), " arrays given, expected ", next);
  }
  void all() {
    for (const GraphNode& node : graph_.nodes) {
      std::vector<double>& y = values_[index(node.y)];
      y.assign(static_cast<size_t>(shape(node.y).numel()), 0.0);
      compute(node, y);
      store(node.y);
    }
  }

 private:
  static size_t index(int i) { return static_cast<size_t>(i); }
  const GraphTensor& tensor(int i) const { return graph_.tensors[index(i)]; }
  const Dims& shape(int i) const { return tensor(i).shape; }

  // Of tensors in memory, from there.
  const std::vector<double>& load(int i) {
    std::vector<double>& out = values_[index(i)];
    if (!out.empty()) return out;
    const GraphTensor& t = tensor(i);
    if (t.kind == GraphTensor::Kind::number) return out = {t.value};
    check(t.kind == GraphTensor::Kind::memory, "graph: a tensor is read before it is written");
    check(reinterpret_cast<uintptr_t>(pointers_[index(i)]) % 16 == 0, "graph: memory is not on a 16-byte boundary");
    if (t.dtype == DType::i64) return out = {static_cast<double>(*static_cast<const int64_t*>(pointers_[index(i)]))};
    with_floating("graph", t.dtype, [&]<class T> {
      for (int64_t j = 0; j < t.shape.numel(); ++j)
        out.push_back(static_cast<double>(
            static_cast<compute_type<T>>(static_cast<const T*>(pointers_[index(i)])[place_of(j, t.shape, t.strides)])));
    });
    return out;
  }
  // Rounds to the tensor's type, and writes what is in memory.
  void store(int i) {
    const GraphTensor& t = tensor(i);
    if (is_integral(t.dtype)) return;
    with_floating("graph", t.dtype, [&]<class T> {
      for (int64_t j = 0; j < t.shape.numel(); ++j) {
        double& value = values_[index(i)][static_cast<size_t>(j)];
        const T rounded(static_cast<compute_type<T>>(value));
        value = static_cast<double>(static_cast<compute_type<T>>(rounded));
        if (t.kind == GraphTensor::Kind::memory)
          static_cast<T*>(pointers_[index(i)])[place_of(j, t.shape, t.strides)] = rounded;
      }
    });
  }

  // The element of tensor i that element j of a tensor of `whole` meets.
  double met(int i, int64_t j, const Dims& whole) {
    const std::vector<double>& x = load(i);
    Dims strides = row_major_strides(shape(i));
    for (int d = 0; d < whole.size(); ++d)
      if (shape(i)[d] == 1) strides[d] = 0;
    return x[static_cast<size_t>(place_of(j, whole, strides))];
  }

  void compute(const GraphNode& node, std::vector<double>& y) {
    switch (node.op) {
      case GraphOp::conv:
      case GraphOp::conv_grad_input:
      case GraphOp::conv_grad_weight:
        return convolve(node, y);
      case GraphOp::matmul:
        return multiply(node, y);
      case GraphOp::largest:
      case GraphOp::sum:
        return reduce(node, y);
      case GraphOp::reshape:
        return reshape(node, y);
      case GraphOp::random:
        return draw(node, y);
      default:
        for (size_t j = 0; j < y.size(); ++j) y[j] = element(node, static_cast<int64_t>(j));
    }
  }

  double element(const GraphNode& node, int64_t j) {
    const Dims& whole = shape(node.y);
    if (node.op == GraphOp::position) return position(whole, j, node.axis);
    const double a = met(node.a, j, whole), b = node.b >= 0 ? met(node.b, j, whole) : 0;
    switch (node.op) {
      case GraphOp::multiply:
        return a * b;
      case GraphOp::add:
        return a + b;
      case GraphOp::subtract:
        return a - b;
      case GraphOp::divide:
        return a / b;
      case GraphOp::exponential:
        return std::exp(a);
      case GraphOp::logarithm:
        return std::log(a);
      case GraphOp::at_least:
        return a >= b ? 1 : 0;
      case GraphOp::identity:
        return a;
      default:
        return met(node.condition, j, whole) != 0 ? a : b;
    }
  }
  static double position(const Dims& whole, int64_t j, int axis) {
    for (int d = whole.size() - 1; d > axis; --d) j /= whole[d];
    return static_cast<double>(j % whole[axis]);
  }

  // To an extent of 1, or of a divisor: neighbours together then.
  void reduce(const GraphNode& node, std::vector<double>& y) {
    const std::vector<double>& a = load(node.a);
    const Dims &from = shape(node.a), &to = shape(node.y), strides = row_major_strides(to);
    if (node.op == GraphOp::largest) std::fill(y.begin(), y.end(), -std::numeric_limits<double>::infinity());
    for (size_t j = 0; j < a.size(); ++j) {
      int64_t place = 0, rest = static_cast<int64_t>(j);
      for (int d = from.size() - 1; d >= 0; --d) {
        place += rest % from[d] / (from[d] / to[d]) * strides[d];
        rest /= from[d];
      }
      double& out = y[static_cast<size_t>(place)];
      out = node.op == GraphOp::sum ? out + a[j] : std::max(out, a[j]);
    }
  }

  // Numbers of its own, as the library has: a function of seed, offset and position.
  void draw(const GraphNode& node, std::vector<double>& y) {
    const Philox state{.seed = static_cast<uint64_t>(load(node.a)[0]),
                       .offset = static_cast<uint64_t>(load(node.b)[0])};
    for (size_t j = 0; j < y.size(); ++j) y[j] = to_uniform(state.block(j)[1]) < graph_.keep ? 1 : 0;
  }

  // The same memory under other extents and strides.
  void reshape(const GraphNode& node, std::vector<double>& y) {
    const std::vector<double>& a = load(node.a);
    std::map<int64_t, double> memory;
    for (size_t j = 0; j < a.size(); ++j)
      memory[place_of(static_cast<int64_t>(j), shape(node.a), tensor(node.a).strides)] = a[j];
    for (size_t j = 0; j < y.size(); ++j)
      y[j] = memory.at(place_of(static_cast<int64_t>(j), shape(node.y), tensor(node.y).strides));
  }

  void multiply(const GraphNode& node, std::vector<double>& y) {
    const std::vector<double>&a = load(node.a), &b = load(node.b);
    const Dims &left = shape(node.a), &right = shape(node.b);
    const int64_t m = left[2], k = left[3], n = right[3];
    check(right[2] == k && right[0] == left[0] && left[1] % right[1] == 0 &&
              shape(node.y) == Dims({left[0], left[1], m, n}),
          "graph: extents of a product");
    const int64_t shared = left[1] / right[1];  // heads of a that meet one of b
    for (int64_t batch = 0; batch < left[0] * left[1]; ++batch)
      for (int64_t i = 0; i < m; ++i)
        for (int64_t l = 0; l < k; ++l)
          for (int64_t j = 0; j < n; ++j)
            y[static_cast<size_t>((batch * m + i) * n + j)] += a[static_cast<size_t>((batch * m + i) * k + l)] *
                                                               b[static_cast<size_t>((batch / shared * k + l) * n + j)];
  }

  // Adds a product of a and b for each tap of each output.
  void convolve(const GraphNode& node, std::vector<double>& result) {
    const ConvGeometry& g = graph_.geometry;
    const bool forward = node.op == GraphOp::conv, to_input = node.op == GraphOp::conv_grad_input;
    const Dims &x = shape(forward    ? node.a
                          : to_input ? node.y
                                     : node.b),
               &w = shape(forward || to_input ? node.b : node.y), &y = shape(forward ? node.y : node.a);
    check(x[1] == w[1] * g.groups && y[1] == w[0], "graph: channels of a convolution");
    for (int side = 0; side < 2; ++side) {
      const auto s = static_cast<size_t>(side);
      check(y[2 + side] == (x[2 + side] + 2 * g.padding[s] - g.dilation[s] * (w[2 + side] - 1) - 1) / g.stride[s] + 1,
            "graph: extents of a convolution");
    }
    const std::vector<double>&a = load(node.a), &b = load(node.b);
    const auto at = [](const Dims& d, int64_t i, int64_t j, int64_t k, int64_t l) {
      return static_cast<size_t>(((i * d[1] + j) * d[2] + k) * d[3] + l);
    };
    for (int64_t i = 0; i < y.numel() * w[1] * w[2] * w[3]; ++i) {
      int64_t rest = i;
      const auto next = [&](int64_t extent) {
        const int64_t position = rest % extent;
        rest /= extent;
        return position;
      };
      const int64_t kw = next(w[3]), kh = next(w[2]), c = next(w[1]), ow = next(y[3]), oh = next(y[2]), o = next(y[1]);
      const int64_t h = oh * g.stride[0] - g.padding[0] + kh * g.dilation[0];
      const int64_t column = ow * g.stride[1] - g.padding[1] + kw * g.dilation[1];
      if (h < 0 || h >= x[2] || column < 0 || column >= x[3]) continue;
      const size_t out = at(y, rest, o, oh, ow), weight = at(w, o, c, kh, kw);
      const size_t in = at(x, rest, o / (w[0] / g.groups) * w[1] + c, h, column);
      if (forward)
        result[out] += a[in] * b[weight];
      else if (to_input)
        result[in] += a[out] * b[weight];
      else
        result[weight] += a[out] * b[in];
    }
  }

  const Graph& graph_;
  std::vector<void*> pointers_;
  std::vector<std::vector<double>> values_;
};

bool is_off() {
  const char* const text = std::getenv("LOOM_CUDNN");
  return text != nullptr && std::string_view(text) == "0";
}

// Convolutions whose extents the library does not know how to count have no plan.
bool is_known(const Graph& graph) {
  if (graph.nodes[0].op != GraphOp::conv_grad_input) return true;
  const Dims &x = graph.tensors[2].shape, &w = graph.tensors[1].shape, &y = graph.tensors[0].shape;
  bool known = true;
  for (size_t s = 0; s < 2; ++s) {
    const int d = 2 + static_cast<int>(s);
    const ConvGeometry& g = graph.geometry;
    known = known && y[d] == (x[d] + 2 * g.padding[s] - g.dilation[s] * (w[d] - 1) - 1) / g.stride[s] + 1;
  }
  return known;
}

// LOOM_EMULATED_PLANS=1: what was run last is told of at the end.
std::atomic<int> last_run = -1;
[[gnu::destructor]] void tell() {
  if (std::getenv("LOOM_EMULATED_PLANS") == nullptr) return;
  std::cerr << str("emulated cuDNN: the last plan that was run is proposal ", last_run.load(), "\n") << std::flush;
}

}  // namespace

size_t dnn_version() { return is_off() ? 0 : 91900; }
std::string dnn_library() { return is_off() ? "no cuDNN: LOOM_CUDNN=0" : "emulated cuDNN"; }

DnnHandle new_dnn_handle() { return nullptr; }

std::vector<std::shared_ptr<const Plan>> plans_of(const Graph& graph, DnnHandle, const DnnRules&, size_t most) {
  std::vector<std::shared_ptr<const Plan>> out;
  if (!is_known(graph)) return out;
  for (const Way way : {Way::slow, Way::refused, Way::fails, Way::quick})
    if (out.size() < most) out.push_back(std::make_shared<const Plan>(Plan{graph, way}));
  return out;
}
size_t workspace_of(const Plan&) { return 0; }

void run_plan(const Plan& plan, DnnHandle, cudaStream_t stream, std::span<void* const> memory, void*) {
  check(plan.way != Way::refused, "emulated cuDNN: refused");
  emulated::enqueue(stream, [plan, arrays = std::vector<void*>(memory.begin(), memory.end())] {
    last_run = static_cast<int>(plan.way);
    check(plan.way != Way::fails, "emulated cuDNN: failed");
    if (plan.way == Way::slow) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    Run(plan.graph, arrays).all();
  });
}

}  // namespace loom::cuda
