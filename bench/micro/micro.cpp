// Single operations beside what the machine allows. A case is a line of cases.txt, which peers/micro.py reads as well;
// to add an operation, add a line to `operations` here, its function to operation.h and its twin to peers/micro.py.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <utility>

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
    {"amax", reduction},
    {"max", largest},
    {"embedding", embedding_rows},
    {"index_select", rows_selected},
    {"nonzero", places_of_set},
    {"sort", sorted_rows},
    {"map", map},
    {"add", add},
    {"copy", copied},
    {"pow", power_of},
    {"dropout", dropout_of},
    {"dropout_both", dropout_both},
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

constexpr double in_memory = 1 << 24;  // bytes; fewer the caches may hold, and move faster than memory (stats.py)

DeviceLimits limits_of(Device device, bool smoke) {
  if (device.kind == Device::cuda) return device_limits(device, smoke);
  return {.copy = copy_bandwidth(Pages::usual, Ways::plain),
          .huge_copy = copy_bandwidth(Pages::huge, Ways::all),
          .flops = fma_peak(),
          .bf16 = bf16_peak()};
}

double in_unit(const Operation& operation, double seconds) {
  if (operation.unit == "GFLOP/s") return operation.cost.flops / seconds * 1e-9;
  static const std::map<std::string, double> scales{{"ns", 1e9}, {"us", 1e6}, {"ms", 1e3}};
  return seconds / operation.per_call * scales.at(operation.unit);
}

// What limits the operation, and its time or rate then; where that is memory, also in huge pages.
void add_limits(Record& record, const Operation& operation, const DeviceLimits& limits) {
  const Cost& cost = operation.cost;
  const double moved = cost.bytes * static_cast<double>(item_size(default_dtype())) / sizeof(float);
  const double by_products = cost.flops / (cost.bf16 ? limits.bf16 : limits.flops);
  const double by_memory = moved < in_memory ? 0 : moved / limits.copy;
  if (moved > 0) record.add("moved", moved);
  if (by_products > by_memory) {
    record.add("limit", in_unit(operation, by_products)).add("bound", "products");
  } else if (by_memory > 0) {
    record.add("limit", in_unit(operation, by_memory)).add("bound", "memory");
    if (limits.huge_copy > 0) record.add("huge_limit", in_unit(operation, moved / limits.huge_copy));
  }
}

constexpr int turns = 4;  // of operations of a GPU: together larger than its caches
// Seconds, on the CPU, of the process's first case and of the others; peers/micro.py has the same.
constexpr double first_warm_up = 0.15, warm_up = 0.05;

double seconds_of(Device device, const Operation& operation, Make make, const Case& given, const Options& options) {
  static bool is_first = true;
  const double warm = std::exchange(is_first, false) ? first_warm_up : warm_up;
  const bool cuda = device.kind == Device::cuda;
  Calls calls{operation.call};
  while (cuda && calls.size() < turns) calls.push_back(make(given).call);
  if (options.smoke()) return seconds_on(device, calls, 0, 0);
  const auto milliseconds = static_cast<double>(options.number("milliseconds", cuda ? 40 : 10));
  return seconds_on(device, calls, cuda ? 0 : warm, 1e-3 * milliseconds);
}

}  // namespace

void run_micro(const Options& options) {
  const Device device = device_of(options);
  context().default_device = device;
  context().default_dtype = dtype_from_string(options.text("dtype", "f32"));
  const DeviceLimits limits = limits_of(device, options.smoke());
  for (const std::string& line : lines_of(options.text("cases"), options.text("group"))) {
    const Case given(line, options.smoke());
    const auto made = operations.find(given.word(0));
    loom::check(made != operations.end(), "no operation '", given.word(0), "'");
    const Operation operation = made->second(given);
    const double seconds = seconds_of(device, operation, made->second, given, options);
    Record record(line, in_unit(operation, seconds), operation.unit);
    add_limits(record, operation, limits);
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
  Record("copy of 40 MB", copy_bandwidth(Pages::usual, Ways::plain) * 1e-9, "GB/s").print();
  Record("copy of 40 MB past the caches", copy_bandwidth(Pages::usual, Ways::all) * 1e-9, "GB/s").print();
  Record("copy of 40 MB in huge pages", copy_bandwidth(Pages::huge, Ways::all) * 1e-9, "GB/s").print();
  Record("triad of 40 MB", triad_bandwidth() * 1e-9, "GB/s").print();
}

}  // namespace bench
