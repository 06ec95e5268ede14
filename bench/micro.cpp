// Single operations beside what the machine allows. To add one, add a line to `operations` here and, for a comparison,
// a line of the same name to peers/micro.py.
#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include <loom/loom.h>
#include <loom/nn/optim/adam.h>

#include "machine_limits.h"
#include "record.h"
#include "row.h"

namespace bench {

using namespace loom;

namespace {

using Body = std::function<void()>;

// What one call costs at least: floats read and written (once each), floating-point operations.
struct Cost {
  double read = 0, written = 0, flops = 0;
};

struct Operation {
  std::string name;
  const char* unit;
  Cost cost;
  std::function<Body()> make;  // allocates; what it returns is timed
  double per_call = 1;         // how many operations a call is
};

template <class T>
void keep(const T& result) {
  benchmark::DoNotOptimize(&result);
}

// A function of one tensor, without gradients.
std::function<Body()> unary(const Dims& shape, Tensor (*f)(const Tensor&)) {
  return [shape, f] { return [x = randn(shape), f] { keep(f(x)); }; };
}

std::function<Body()> product(int64_t n) {
  return [n] { return [a = randn({n, n}), b = randn({n, n})] { keep(matmul(a, b)); }; };
}

Body adamw_step(int64_t n) {
  const auto weight = std::make_shared<Parameter>(randn({n}));
  weight->set_grad(randn({n}));
  const auto optimizer = std::make_shared<optim::AdamW>(std::vector<NamedTensor>{{"weight", *weight}});
  return [weight, optimizer] { optimizer->step(); };
}

Body recorded(bool record) {
  return [a = randn({4}).requires_grad_(record), b = randn({4})] { keep(a + b); };
}

Body backward_chain(int64_t nodes) {
  const Tensor x = randn({4}).requires_grad_(), factor = ones({4});
  Tensor y = x;
  for (int64_t i = 0; i < nodes; ++i) y = y * factor;
  return [x, y = sum(y)] { y.backward({}, true); };
}

std::vector<Operation> operations(bool smoke) {
  const int64_t rows = smoke ? 10 : 10'000, nodes = smoke ? 10 : 1000, small = smoke ? 16 : 512;
  const int64_t columns = 1000, n = rows * columns;
  const auto f = static_cast<double>(n);
  const auto cube = [](int64_t m) { return Cost{.flops = 2.0 * static_cast<double>(m * m * m)}; };
  return {
      {"gemm 512", "GFLOP/s", cube(small), product(small)},
      {"gemm 1024", "GFLOP/s", cube(2 * small), product(2 * small)},
      {"relu 10M", "ms", {.read = f, .written = f}, unary({n}, relu)},
      {"exp 10M", "ms", {.read = f, .written = f}, unary({n}, exp)},
      {"softmax 10M",
       "ms",
       {.read = f, .written = f},
       unary({rows, columns}, [](const Tensor& x) { return softmax(x, 1); })},
      {"layer_norm 10M",
       "ms",
       {.read = f, .written = f},
       unary({rows, columns}, [](const Tensor& x) { return layer_norm(x, {1000}); })},
      {"sum 10M", "ms", {.read = f}, unary({n}, [](const Tensor& x) { return sum(x); })},
      {"AdamW 10M", "ms", {.read = 4 * f, .written = 3 * f}, [n] { return adamw_step(n); }},
      {"add 4 floats", "ns", {}, [] { return recorded(false); }},
      {"add 4 floats, recorded", "ns", {}, [] { return recorded(true); }},
      {"backward, per node", "ns", {}, [nodes] { return backward_chain(nodes); }, static_cast<double>(nodes)},
  };
}

struct Limits {
  double copy = copy_bandwidth(), update = update_bandwidth(), read = read_bandwidth(), flops = fma_peak();

  // Seconds; 0: no limit is known.
  double seconds(const Cost& cost) const {
    const double bytes = 4 * (cost.read + cost.written);
    return std::max(bytes / std::max({copy, update, read}), cost.flops / flops);
  }
};

double in_unit(const Operation& operation, double seconds) {
  const std::string unit = operation.unit;
  if (unit == "GFLOP/s") return operation.cost.flops / seconds * 1e-9;
  return seconds / operation.per_call * (unit == "ns" ? 1e9 : 1e3);
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

double seconds_of_a_call(const std::string& name, const Body& body, const Options& options) {
  benchmark::ClearRegisteredBenchmarks();
  auto* const registered = benchmark::RegisterBenchmark(name.c_str(), [&body](benchmark::State& state) {
    for ([[maybe_unused]] auto _ : state) body();
  });
  registered->UseRealTime();
  if (options.smoke())
    registered->Iterations(2);
  else
    registered->MinTime(static_cast<double>(options.number("seconds", 1)));
  Reporter reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter);
  return reporter.seconds;
}

}  // namespace

void run_micro(const Options& options) {
  int argc = 1;
  char program[] = "loom_bench", *argv[] = {program, nullptr};
  benchmark::Initialize(&argc, argv);
  const std::string filter = options.text("filter");
  const auto wanted = [&](const std::string& name) { return name.find(filter) != std::string::npos; };

  const Limits limits;
  if (wanted("copy")) Record("copy 40 MB", limits.copy * 1e-9, "GB/s").print();
  if (wanted("update")) Record("update 40 MB", limits.update * 1e-9, "GB/s").print();
  if (wanted("read")) Record("read 40 MB", limits.read * 1e-9, "GB/s").print();
  if (wanted("fma")) Record("fma peak", limits.flops * 1e-9, "GFLOP/s").print();
  for (const Operation& operation : operations(options.smoke())) {
    if (!wanted(operation.name)) continue;
    const Body body = operation.make();
    body();  // what is made once is made before the clock starts
    const double value = in_unit(operation, seconds_of_a_call(operation.name, body, options));
    Record record(operation.name, value, operation.unit);
    if (const double limit = limits.seconds(operation.cost); limit > 0) record.add("limit", in_unit(operation, limit));
    record.print();
  }
}

}  // namespace bench
