// Products and convolutions by Debian's oneDNN (libdnnl-dev), as an engine for inference would call it: primitives are
// made and weights and images laid out before the clock starts, in the layout that the library asks for or
// channels-last, the transformed tiles of Winograd among its algorithms; what is fastest counts.
//   dnnl group=NAME cases=FILE          mpicxx -O3 -std=c++20 dnnl.cpp -ldnnl
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

#include <oneapi/dnnl/dnnl.hpp>

namespace {

using dnnl::memory;
using Tag = memory::format_tag;

const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
dnnl::stream stream(engine);

memory filled(const memory::desc& layout) {
  memory made(layout, engine);
  std::memset(made.get_data_handle(), 0, layout.get_size());  // touched; zeros take as long as other numbers
  return made;
}

std::function<void()> call_of(const dnnl::primitive& primitive, const std::unordered_map<int, memory>& arguments) {
  return [=] {
    primitive.execute(stream, arguments);
    stream.wait();
  };
}

double seconds_of(const std::function<void()>& call, double at_least) {
  call();
  for (int calls = 1;;) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; ++i) call();
    const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (took >= at_least) return took / calls;
    calls = std::max(calls + 1, static_cast<int>(std::min(10., 1.4 * at_least / std::max(took, 1e-9)) * calls));
  }
}

struct Case {
  std::string form;
  memory::data_type type;
  std::vector<memory::dim> sizes;
};

std::function<void()> product(const Case& given) {
  const memory::dim m = given.sizes[0], n = given.sizes[1], k = given.sizes[2];
  const memory::desc a({m, k}, given.type, given.form[0] == 't' ? Tag::ba : Tag::ab);
  const memory::desc b({k, n}, given.type, Tag::any), c({m, n}, given.type, Tag::ab);
  const dnnl::matmul::primitive_desc made(dnnl::matmul::desc(a, b, c), engine);
  return call_of(dnnl::matmul(made), {{DNNL_ARG_SRC, filled(made.src_desc())},
                                      {DNNL_ARG_WEIGHTS, filled(made.weights_desc())},
                                      {DNNL_ARG_DST, filled(made.dst_desc())}});
}

memory::dim out_side(const Case& given) {
  const memory::dim height = given.sizes[2], kernel = given.sizes[4];
  return (height + 2 * (kernel / 2) - kernel) / given.sizes[5] + 1;
}

std::function<void()> convolution(const Case& given, dnnl::algorithm how, Tag layout) {
  using dnnl::convolution_backward_data, dnnl::convolution_backward_weights, dnnl::convolution_forward;
  const memory::dim n = given.sizes[0], c = given.sizes[1], h = given.sizes[2], o = given.sizes[3],
                    kernel = given.sizes[4];
  const memory::dim out = out_side(given);
  const memory::desc x({n, c, h, h}, given.type, layout), w({o, c, kernel, kernel}, given.type, Tag::any);
  const memory::desc y({n, o, out, out}, given.type, layout);
  const memory::dims step{given.sizes[5], given.sizes[5]}, around{kernel / 2, kernel / 2};
  const convolution_forward::primitive_desc forward(
      {dnnl::prop_kind::forward_training, how, x, w, y, step, around, around}, engine);
  if (given.form == "forward")
    return call_of(convolution_forward(forward), {{DNNL_ARG_SRC, filled(forward.src_desc())},
                                                  {DNNL_ARG_WEIGHTS, filled(forward.weights_desc())},
                                                  {DNNL_ARG_DST, filled(forward.dst_desc())}});
  if (given.form == "input") {
    const convolution_backward_data::primitive_desc made({how, x, w, y, step, around, around}, engine, forward);
    return call_of(convolution_backward_data(made), {{DNNL_ARG_DIFF_SRC, filled(made.diff_src_desc())},
                                                     {DNNL_ARG_WEIGHTS, filled(made.weights_desc())},
                                                     {DNNL_ARG_DIFF_DST, filled(made.diff_dst_desc())}});
  }
  const convolution_backward_weights::primitive_desc made({how, x, w, y, step, around, around}, engine, forward);
  return call_of(convolution_backward_weights(made), {{DNNL_ARG_SRC, filled(made.src_desc())},
                                                      {DNNL_ARG_DIFF_WEIGHTS, filled(made.diff_weights_desc())},
                                                      {DNNL_ARG_DIFF_DST, filled(made.diff_dst_desc())}});
}

std::function<void()> fastest_convolution(const Case& given) {
  std::function<void()> best;
  double least = 1e9;
  for (const auto how : {dnnl::algorithm::convolution_direct, dnnl::algorithm::convolution_winograd})
    for (const Tag layout : {Tag::any, Tag::nhwc}) try {
        const auto call = convolution(given, how, layout);
        if (const double took = seconds_of(call, 4e-3); took < least) least = took, best = call;
      } catch (const dnnl::error&) {  // this way does not have such a case
      }
  return best;
}

void measure(const std::string& line) {
  std::istringstream words(line);
  std::string name, type;
  Case given;
  words >> name >> given.form >> type;
  given.type = type == "bf16" ? memory::data_type::bf16 : memory::data_type::f32;
  for (memory::dim size = 0; words >> size;) given.sizes.push_back(size);
  double flops = 2;
  for (const memory::dim size : given.sizes) flops *= static_cast<double>(size);
  if (name == "conv") {
    const auto& s = given.sizes;
    flops = 2. * static_cast<double>(s[0] * out_side(given) * out_side(given) * s[3] * s[1] * s[4] * s[4]);
  }
  const auto call = name == "conv" ? fastest_convolution(given) : product(given);
  std::printf("{\"case\": \"%s\", \"value\": %.9g, \"unit\": \"GFLOP/s\"}\n", line.c_str(),
              flops / seconds_of(call, 40e-3) * 1e-9);
}

}  // namespace

int main(int argc, char** argv) {
  std::string group, file;
  for (const std::string argument : std::vector<std::string>(argv + 1, argv + argc)) {
    if (argument.starts_with("group=")) group = argument.substr(6);
    if (argument.starts_with("cases=")) file = argument.substr(6);
  }
  std::ifstream in(file);
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    line.resize(std::min(line.find('#'), line.size()));
    line.resize(line.find_last_not_of(' ') + 1);
    if (line.starts_with('['))
      inside = line == "[" + group + "]";
    else if (inside && !line.empty())
      measure(line);
  }
}
