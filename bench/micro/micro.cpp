// Single operations beside what the machine allows. A case is a line of cases.txt, which peers/micro.py reads as well;
// to add an operation, add a line to `operations` here, its function to operation.h and its twin to peers/micro.py.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include <loom/tensor/context.h>
#include <loom/tensor/create.h>

#include "../device.h"
#include "../machine_limits.h"
#include "../record.h"
#include "../row.h"
#include "operation.h"

namespace bench {

using namespace loom;

Case::Case(std::string line, bool smoke) : line_(std::move(line)), smoke_(smoke) {
  std::istringstream text(line_);
  for (std::string word; text >> word;) words_.push_back(word);
}

namespace {

const std::map<std::string, Make> operations{
    {"gemm", gemm},
    {"conv", conv},
    {"attention", attention},
    {"softmax", softmax_rows},
    {"layer_norm", layer_norm_rows},
    {"rms_norm", rms_norm_rows},
    {"batch_norm", batch_norm_images},
    {"cross_entropy", cross_entropy_rows},
    {"sum", reduction},
    {"max", reduction},
    {"embedding", embedding_rows},
    {"index_select", rows_selected},
    {"nonzero", places_of_set},
    {"sort", sorted_rows},
    {"map", map},
    {"add", add},
    {"copy", copied},
    {"pow", power_of},
    {"dropout", dropout_of},
    {"optimizer", optimizer},
    {"transpose", transposed},
    {"strided", strided},
    {"cat", joined},
    {"flip", flipped},
    {"tiny_add", tiny_add},
    {"backward_node", backward_node},
    {"graph", graph},
};

// The lines under [group], without comments.
std::vector<std::string> lines_of(const std::filesystem::path& file, const std::string& group) {
  std::ifstream in(file);
  loom::check(in.good(), "cases: cannot read ", file.string());
  std::vector<std::string> lines;
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    line.resize(std::min(line.find('#'), line.size()));
    line.resize(line.find_last_not_of(' ') + 1);
    if (line.starts_with('['))
      inside = line == "[" + group + "]";
    else if (inside && !line.empty())
      lines.push_back(line);
  }
  loom::check(!lines.empty(), "no cases under [", group, "] in ", file.string());
  return lines;
}

constexpr double in_caches = 20e6;  // bytes

DeviceLimits limits_of(Device device, bool smoke) {
  if (device.kind == Device::cuda) return device_limits(device, smoke);
  return {.copy = copy_bandwidth(), .flops = fma_peak(), .bf16 = bf16_peak()};
}

// Seconds; 0: no limit is known. What the caches hold moves faster than memory.
double least_seconds(const DeviceLimits& limits, const Cost& cost) {
  const double bytes = cost.bytes * static_cast<double>(item_size(default_dtype())) / sizeof(float);
  return std::max(bytes < in_caches ? 0 : bytes / limits.copy, cost.flops / (cost.bf16 ? limits.bf16 : limits.flops));
}

double in_unit(const Operation& operation, double seconds) {
  if (operation.unit == "GFLOP/s") return operation.cost.flops / seconds * 1e-9;
  static const std::map<std::string, double> scales{{"ns", 1e9}, {"us", 1e6}, {"ms", 1e3}};
  return seconds / operation.per_call * scales.at(operation.unit);
}

// Hands over the seconds of a call; prints nothing itself.
class Reporter : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) seconds = run.real_accumulated_time / static_cast<double>(run.iterations);
  }
  double seconds = 0;
};

double seconds_of_a_call(const std::string& name, const Operation& operation, const Options& options) {
  benchmark::ClearRegisteredBenchmarks();
  auto* const registered = benchmark::RegisterBenchmark(name.c_str(), [&operation](benchmark::State& state) {
    for ([[maybe_unused]] auto _ : state) operation.call();
  });
  registered->UseRealTime();
  if (options.smoke())
    registered->Iterations(1);
  else
    registered->MinTime(1e-3 * static_cast<double>(options.number("milliseconds", 40)));
  Reporter reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter);
  return reporter.seconds;
}

// Operations of a GPU that take turns: together larger than its caches.
constexpr int turns = 4;

double seconds_on_device(Device device, const Operation& first, Make make, const Case& given, const Options& options) {
  std::vector<std::function<void()>> calls{first.call};
  while (calls.size() < turns) calls.push_back(make(given).call);
  const double milliseconds = options.smoke() ? 0 : static_cast<double>(options.number("milliseconds", 40));
  return seconds_on(device, calls, 1e-3 * milliseconds);
}

}  // namespace

void run_micro(const Options& options) {
  const Device device = device_of(options);
  context().default_device = device;
  context().default_dtype = dtype_from_string(options.text("dtype", "f32"));
  int argc = 1;
  char program[] = "loom_bench", *argv[] = {program, nullptr};
  benchmark::Initialize(&argc, argv);
  const DeviceLimits limits = limits_of(device, options.smoke());
  for (const std::string& line : lines_of(options.text("cases"), options.text("group"))) {
    const Case given(line, options.smoke());
    const auto made = operations.find(given.word(0));
    loom::check(made != operations.end(), "no operation '", given.word(0), "'");
    const Operation operation = made->second(given);
    operation.call();  // what is made once is made before the clock starts
    const double seconds = device.kind == Device::cuda
                               ? seconds_on_device(device, operation, made->second, given, options)
                               : seconds_of_a_call(line, operation, options);
    Record record(line, in_unit(operation, seconds), operation.unit);
    if (const double limit = least_seconds(limits, operation.cost); limit > 0)
      record.add("limit", in_unit(operation, limit));
    record.print();
  }
}

void run_machine(const Options& options) {
  if (const Device device = device_of(options); device.kind == Device::cuda) {
    const DeviceLimits limits = device_limits(device, options.smoke());
    Record("products, f32", limits.flops * 1e-9, "GFLOP/s").print();
    Record("products, bf16", limits.bf16 * 1e-9, "GFLOP/s").print();
    Record("copy of 1 GiB", limits.copy * 1e-9, "GB/s").print();
    return;
  }
  Record("multiply-adds, f32", fma_peak() * 1e-9, "GFLOP/s").print();
  Record("multiply-adds, bf16", bf16_peak() * 1e-9, "GFLOP/s").print();
  Record("copy of 40 MB", copy_bandwidth() * 1e-9, "GB/s").print();
  Record("triad of 40 MB", triad_bandwidth() * 1e-9, "GB/s").print();
}

}  // namespace bench
