// SPDX-License-Identifier: Apache-2.0
// The dtypes of results under autocast, op by op, against PyTorch's for CPUs and for CUDA
// (tests/golden/autocast_cases.py): inputs in f32, in 16 bits, and mixed.
#include <loom/autograd/autocast.h>
#include <loom/nn/recurrent.h>

#include "golden_case.h"

namespace {

using namespace loom;
using golden::Args;
using golden::Call;
using golden::Results;
using Ops = std::set<std::string>;

// Where results have another dtype on purpose. What is not listed is PyTorch's; what is listed and is not true fails.
struct Difference {
  std::string device, why;
  Ops ops;
};
const Difference on_purpose[] = {
    {"cpu",
     "the list is CUDA's, which has in f32 what 16 bits may not hold",
     {"exp",       "expm1",       "log",        "log2",       "log10",    "log1p",          "rsqrt",       "reciprocal",
      "tan",       "asin",        "acos",       "sinh",       "cosh",     "softplus",       "pow_scalar",  "pow",
      "square",    "sum",         "sum_to",     "norm",       "cumsum",   "cumprod",        "softmax",     "softmin",
      "logsumexp", "log_softmax", "layer_norm", "group_norm", "rms_norm", "add_layer_norm", "add_rms_norm"}},
    {"cuda", "a sum is in f32 as the norm that is made with it", {"add_layer_norm", "add_rms_norm"}},
    {"cpu", "unsafe, as in CUDA's list", {"binary_cross_entropy"}},
    {"cpu", "a product of one tensor is cast as CUDA's is", {"einsum"}},
    {"cpu",
     "16 bits as on CUDA; there a state in f32, which of an input in f32 are the zeros too, can make results so",
     {"gru", "gru_unbatched", "lstm_deep"}},
    {"cuda",
     "its kernels refuse tensors of two dtypes, which the fake tensors that were asked do not know",
     {"index_add", "index_add_"}},
    {"cuda",
     "an input in f32 beside weights and statistics in 16 bits is refused, as on the CPU",
     {"batch_norm", "batch_norm_relu"}},
    {"cuda", "most cases are y[i] = v there, which promotes nothing, and a number is expanded first", {"index_put"}},
};

constexpr DType dtypes[] = {f64, f32, f16, bf16, i64, i32, u8, boolean};
constexpr const char* devices[] = {"cpu", "cuda"};
constexpr DType lows[] = {bf16, f16};
constexpr const char* patterns[] = {"f32", "16 bits", "f32 and 16 bits", "16 bits and f32"};
constexpr int refused = 255;

Args in_pattern(const Args& inputs, size_t pattern, DType low) {
  Args out;
  bool first = true;
  for (const Tensor& x : inputs) {
    if (!is_floating(x.dtype())) {
      out.push_back(x);
      continue;
    }
    const bool wide = pattern == 0 || (pattern == 2 && first) || (pattern == 3 && !first);
    out.push_back(x.to(wide ? f32 : low).clone());
    first = false;
  }
  return out;
}

// The results' dtypes, by their places; nothing where Loom refuses.
std::vector<int> numbers_of(const Call& call, const Args& inputs, DType low) {
  try {
    const Autocast region(low);
    std::vector<int> out;
    for (const Tensor& y : call(inputs)) out.push_back(static_cast<int>(y.dtype()));
    return out;
  } catch (const Error&) {
    return {};
  }
}

std::string names_of(const std::vector<int>& numbers) {
  std::string out;
  for (const int n : numbers) out += " " + to_string(dtypes[n]);
  return out.empty() ? " an error" : out;
}

// PyTorch computes these outside of autocast, by functions that its lists do not know.
bool is_gradient(const std::string& op) { return op.ends_with("_backward") || op.find("_grad") != std::string::npos; }

class Comparison {
 public:
  void add(const std::string& part, const std::string& name, const Args& inputs, const Call& call) {
    const std::string op = name.substr(0, name.find('/')), key = part + "." + name;
    if (is_gradient(op)) return;
    seen_.insert(key);
    const Tensor stored = golden::file("autocast").at(key);  // [devices, lows, patterns, results]
    for (int64_t low = 0; low < 2; ++low)
      for (int64_t pattern = 0; pattern < 4; ++pattern) {
        const std::vector<int> got =
            numbers_of(call, in_pattern(inputs, static_cast<size_t>(pattern), lows[low]), lows[low]);
        for (int64_t device = 0; device < 2; ++device)
          compare(op, device, stored[device][low][pattern].to_vector<int>(), got,
                  str(key, " of ", patterns[pattern], " in a region of ", lows[low]));
      }
  }

  void finish() const {
    CHECK(seen_.size() == golden::file("autocast").size());
    for (const Difference& d : on_purpose)
      for (const std::string& op : d.ops)
        CHECK_MESSAGE(differ_.contains(d.device + " " + op), op, " is as on ", d.device, ", though listed");
  }

 private:
  Ops seen_, differ_;

  // Where PyTorch refuses there is nothing to compare: mixed inputs that its kernels do not take, mostly.
  void compare(const std::string& op, int64_t device, const std::vector<int>& expected, const std::vector<int>& got,
               const std::string& what) {
    if (expected.at(0) == refused || got == expected) return;
    const std::string on = devices[device];
    differ_.insert(on + " " + op);
    const bool known = std::any_of(std::begin(on_purpose), std::end(on_purpose),
                                   [&](const Difference& d) { return d.device == on && d.ops.contains(op); });
    if (!known) FAIL_CHECK(what, ": got", names_of(got), ", on ", on, names_of(expected));
  }
};

void add_elementwise(Comparison& all) {
  const Args one{full({2}, 0.5)}, two{full({2}, 0.5), full({2}, 0.5)};
#define UNARY(name, ...) all.add("elementwise", #name, one, [](const Args& x) { return loom::name(x[0]); });
#define UNARY_P(name, p, q, ...) \
  all.add("elementwise", #name, one, [](const Args& x) { return loom::name(x[0], p, q); });
#define STEP(name, ...) UNARY(name)
#define PREDICATE(name, ...) UNARY(name)
#define BINARY(name, ...) all.add("elementwise", #name, two, [](const Args& x) { return loom::name(x[0], x[1]); });
#define COMPARE(name, ...) BINARY(name)
#include <loom/accelerators/elementwise.def>
}

template <class Net>
void add_layer(Comparison& all, const std::string& name, const Net& net) {
  all.add("layers", name, golden::leaves(golden::file("layers"), name + ".in", f32, false),
          [net](const Args& x) -> Results {
            if constexpr (std::is_same_v<Net, nn::LSTM>) {
              const auto y = x.size() > 1 ? net(x[0], x[1], x[2]) : net(x[0]);
              return {y.output, y.h_n, y.c_n};
            } else {
              const auto y = x.size() > 1 ? net(x[0], x[1]) : net(x[0]);
              return {y.output, y.h_n};
            }
          });
}

void add_layers(Comparison& all) {
  add_layer(all, "rnn", nn::RNN(3, 4));
  add_layer(all, "rnn_relu", nn::RNN(3, 4, {.nonlinearity = "relu", .batch_first = true, .bidirectional = true}));
  add_layer(all, "gru", nn::GRU(3, 4, {.num_layers = 2, .bidirectional = true}));
  add_layer(all, "gru_unbatched", nn::GRU(3, 4, {.bias = false}));
  add_layer(all, "lstm", nn::LSTM(3, 4));
  add_layer(all, "lstm_deep", nn::LSTM(3, 4, {.num_layers = 2, .batch_first = true, .bidirectional = true}));
}

}  // namespace

TEST_CASE("under autocast results have PyTorch's dtypes, or a reason why not") {
  Comparison all;
  for (const auto& [part, groups] :
       {std::pair{"operators", golden::operator_cases()}, {"arrays", golden::array_cases()}})
    for (const auto& group : groups)
      for (const auto& [name, call] : group)
        all.add(part, name, golden::leaves(golden::file(part), name + ".in", f32, false), call);
  add_elementwise(all);
  add_layers(all);
  all.finish();
}
