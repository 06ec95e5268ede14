// Products and convolutions by Debian's oneDNN (libdnnl-dev), for what a training step has: plain operands and results
// (matrices by rows or by columns, images nchw or nhwc, weights oihw), as weights change with every step. Where a
// primitive is faster in layouts of its own, Winograd's tiles of weights among them, the clock runs while operands are
// brought there and results back. Of all ways the fastest counts.
//   dnnl group=NAME cases=FILE          c++ -O3 -std=c++20 dnnl.cpp -ldnnl
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <functional>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <oneapi/dnnl/dnnl.hpp>

#include "../timing.h"

namespace {

using dnnl::memory;
using Tag = memory::format_tag;
using Call = std::function<void()>;
using Arguments = std::unordered_map<int, memory>;

const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
dnnl::stream stream(engine);

struct Case {
  std::string form;
  memory::data_type type;
  std::vector<memory::dim> sizes;
};

// Numbers in [-1, 1), the same thousands over and over; zeros would take less power, and so run faster.
const std::vector<float>& numbers() {
  static const std::vector<float> made = [] {
    std::minstd_rand random;
    std::vector<float> values(65'521);
    for (float& value : values) value = std::uniform_real_distribution<float>(-1, 1)(random);
    return values;
  }();
  return made;
}

memory filled(memory::dim count, memory::data_type type) {
  memory made({{count}, type, Tag::a}, engine);
  const std::vector<float>& from = numbers();
  auto* const at = static_cast<char*>(made.get_data_handle());
  for (size_t i = 0, place = 0; i < static_cast<size_t>(count); ++i, place = place + 1 == from.size() ? 0 : place + 1) {
    uint32_t bits = 0;
    std::memcpy(&bits, &from[place], sizeof bits);
    const auto upper = static_cast<uint16_t>(bits >> 16);
    if (type == memory::data_type::bf16)
      std::memcpy(at + 2 * i, &upper, sizeof upper);
    else
      std::memcpy(at + 4 * i, &bits, sizeof bits);
  }
  return made;
}

struct Operand {
  int argument;
  const memory& numbers;
  memory::desc plain, wanted;  // how it lies outside; how the primitive has it

  memory outside() const { return memory(plain, engine, numbers.get_data_handle()); }
};

// From plain inputs to a plain output: reorders between that and what the primitive wants are part of the call.
Call call_of(const dnnl::primitive& primitive, const std::vector<Operand>& inputs, const Operand& output) {
  std::vector<std::pair<dnnl::primitive, Arguments>> steps;
  Arguments arguments;
  const auto reorder = [&](const memory& from, const memory& to) {
    steps.emplace_back(dnnl::reorder(from, to), Arguments{{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
  };
  const auto inside = [](const Operand& operand) {
    return operand.wanted == operand.plain ? operand.outside() : memory(operand.wanted, engine);
  };
  for (const Operand& input : inputs) {
    const memory& used = arguments.emplace(input.argument, inside(input)).first->second;
    if (input.wanted != input.plain) reorder(input.outside(), used);
  }
  const memory result = inside(output);
  arguments.emplace(output.argument, result);
  steps.emplace_back(primitive, arguments);
  if (output.wanted != output.plain) reorder(result, output.outside());
  return [steps] {
    for (const auto& [step, given] : steps) step.execute(stream, given);
    stream.wait();
  };
}

class Fastest {
 public:
  // `make` throws where the library has no such way.
  void consider(const std::function<Call()>& make) try {
    const Call call = make();
    call();
    if (const double took = least_seconds(call); took < least_) least_ = took, best_ = call;
  } catch (const dnnl::error&) {  // the other ways may have such a case
  }
  const Call& call() const { return best_; }

 private:
  // Of a few calls; of one, where the way is far behind.
  double least_seconds(const Call& call) const {
    using Clock = std::chrono::steady_clock;
    constexpr double enough = 5e-3, far = 1.5;
    double least = 1e9;
    for (double total = 0; total < enough;) {
      const auto start = Clock::now();
      call();
      const double took = std::chrono::duration<double>(Clock::now() - start).count();
      least = std::min(least, took), total += took;
      if (took > far * least_) break;
    }
    return least;
  }

  double least_ = 1e9;
  Call best_;
};

// The library's own reference, a plain loop, takes seconds where others take milliseconds.
template <class Made>
Made without_reference(Made made) {
  if (std::string_view(made.impl_info_str()).starts_with("ref"))
    throw dnnl::error(dnnl_unimplemented, "a reference alone");
  return made;
}

// Both operands are plain, as for all peers that count: neither weights nor gradients or activations stay as they are
// from step to step. (PyTorch's oneDNN with a packed operand is told beside them: rows.py.)
Call product(const Case& given) {
  const memory::dim m = given.sizes[0], n = given.sizes[1], k = given.sizes[2];
  const memory a = filled(m * k, given.type), b = filled(k * n, given.type), c = filled(m * n, given.type);
  const memory::desc plain_a({m, k}, given.type, given.form[0] == 't' ? Tag::ba : Tag::ab);
  const memory::desc plain_b({k, n}, given.type, given.form[1] == 't' ? Tag::ba : Tag::ab);
  const memory::desc any_a({m, k}, given.type, Tag::any), any_b({k, n}, given.type, Tag::any);
  const memory::desc plain_c({m, n}, given.type, Tag::ab);
  Fastest fastest;
  for (const memory::desc& wanted_a : {plain_a, any_a})
    for (const memory::desc& wanted_b : {plain_b, any_b})
      fastest.consider([&] {
        const auto made = without_reference(dnnl::matmul::primitive_desc({wanted_a, wanted_b, plain_c}, engine));
        return call_of(
            dnnl::matmul(made),
            {{DNNL_ARG_SRC, a, plain_a, made.src_desc()}, {DNNL_ARG_WEIGHTS, b, plain_b, made.weights_desc()}},
            {DNNL_ARG_DST, c, plain_c, made.dst_desc()});
      });
  return [a, b, c, call = fastest.call()] { call(); };
}

memory::dim out_side(const Case& given) {
  const memory::dim height = given.sizes[2], kernel = given.sizes[4];
  return (height + 2 * (kernel / 2) - kernel) / given.sizes[5] + 1;
}

struct Images {
  memory x, w, y;
};

// plain: how images lie; wanted: the same, or any.
Call convolution(const Case& given, const Images& images, dnnl::algorithm how, Tag plain, Tag wanted) {
  using dnnl::convolution_backward_data, dnnl::convolution_backward_weights, dnnl::convolution_forward;
  const auto& s = given.sizes;
  const memory::dim out = out_side(given);
  const memory::dims of_x{s[0], s[1], s[2], s[2]}, of_w{s[3], s[1], s[4], s[4]}, of_y{s[0], s[3], out, out};
  const memory::desc plain_x(of_x, given.type, plain), plain_w(of_w, given.type, Tag::oihw);
  const memory::desc plain_y(of_y, given.type, plain), w(of_w, given.type, Tag::any);
  const memory::desc x(of_x, given.type, wanted), y(of_y, given.type, wanted);
  const memory::dims step{s[5], s[5]}, around{s[4] / 2, s[4] / 2};
  const convolution_forward::primitive_desc forward(
      {dnnl::prop_kind::forward_training, how, x, w, y, step, around, around}, engine);
  if (given.form == "forward") {
    const auto made = without_reference(forward);
    return call_of(convolution_forward(made),
                   {{DNNL_ARG_SRC, images.x, plain_x, made.src_desc()},
                    {DNNL_ARG_WEIGHTS, images.w, plain_w, made.weights_desc()}},
                   {DNNL_ARG_DST, images.y, plain_y, made.dst_desc()});
  }
  if (given.form == "input") {
    const auto made = without_reference(
        convolution_backward_data::primitive_desc({how, x, w, y, step, around, around}, engine, forward));
    return call_of(convolution_backward_data(made),
                   {{DNNL_ARG_WEIGHTS, images.w, plain_w, made.weights_desc()},
                    {DNNL_ARG_DIFF_DST, images.y, plain_y, made.diff_dst_desc()}},
                   {DNNL_ARG_DIFF_SRC, images.x, plain_x, made.diff_src_desc()});
  }
  const auto made = without_reference(
      convolution_backward_weights::primitive_desc({how, x, w, y, step, around, around}, engine, forward));
  return call_of(convolution_backward_weights(made),
                 {{DNNL_ARG_SRC, images.x, plain_x, made.src_desc()},
                  {DNNL_ARG_DIFF_DST, images.y, plain_y, made.diff_dst_desc()}},
                 {DNNL_ARG_DIFF_WEIGHTS, images.w, plain_w, made.diff_weights_desc()});
}

Call fastest_convolution(const Case& given) {
  using dnnl::algorithm;
  const auto& s = given.sizes;
  const memory::dim out = out_side(given);
  const Images images{filled(s[0] * s[1] * s[2] * s[2], given.type), filled(s[3] * s[1] * s[4] * s[4], given.type),
                      filled(s[0] * s[3] * out * out, given.type)};
  Fastest fastest;
  for (const auto how : {algorithm::convolution_direct, algorithm::convolution_winograd})  // auto is one of these
    for (const Tag plain : {Tag::nchw, Tag::nhwc})
      for (const Tag wanted : {Tag::any, plain})
        fastest.consider([&] { return convolution(given, images, how, plain, wanted); });
  return [images, call = fastest.call()] { call(); };
}

double operations(const std::string& name, const Case& given) {
  const auto& s = given.sizes;
  if (name == "conv")
    return 2. * static_cast<double>(s[0] * out_side(given) * out_side(given) * s[3] * s[1] * s[4] * s[4]);
  return 2. * static_cast<double>(s[0] * s[1] * s[2]);
}

constexpr double warm_up = 0.05, at_least = 0.01;  // seconds, as micro/micro.cpp; the ways were tried before

void measure(const std::string& line) {
  std::istringstream words(line);
  std::string name, type;
  Case given;
  words >> name >> given.form >> type;
  given.type = type == "bf16" ? memory::data_type::bf16 : memory::data_type::f32;
  for (memory::dim size = 0; words >> size;) given.sizes.push_back(size);
  const Call call = name == "conv" ? fastest_convolution(given) : product(given);
  const double seconds = bench::seconds_of_a_call({call}, warm_up, at_least, [] {});
  std::printf("{\"case\": \"%s\", \"value\": %.9g, \"unit\": \"GFLOP/s\"}\n", line.c_str(),
              operations(name, given) / seconds * 1e-9);
}

// The others go on without a case that the library does not have.
void try_to_measure(const std::string& line) try { measure(line); } catch (const std::exception& error) {
  std::fprintf(stderr, "dnnl: %s: %s\n", line.c_str(), error.what());
}

}  // namespace

int main(int argc, char** argv) {
  std::string group, file;
  for (const std::string& argument : std::vector<std::string>(argv + 1, argv + argc)) {
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
      try_to_measure(line);
  }
}
