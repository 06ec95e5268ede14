// The command `loom`: what this installation is, and what it finds on this machine.
#include <CLI/CLI.hpp>
#include <cmath>
#include <iostream>
#include <string>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cpu.h>
#include <loom/accelerators/cuda.h>
#include <loom/accelerators/onednn.h>
#include <loom/accelerators/threads.h>
#include <loom/distributed/mpi.h>
#include <loom/distributed/nccl.h>

using namespace loom;

namespace {

void line(const std::string& name, const std::string& text) {
  std::cout << "  " << name << std::string(name.size() < 14 ? 14 - name.size() : 1, ' ') << text << "\n";
}

std::string rounded(double value, double unit) { return str(std::round(value / unit * 10) / 10); }
std::string gib(int64_t bytes) { return rounded(static_cast<double>(bytes), 1024.0 * 1024 * 1024) + " GiB"; }

std::string peaks(const DeviceProperties& gpu) {
  if (gpu.peak_flops(bf16) == 0) return "peaks not known";
  return str("at most ", rounded(gpu.peak_flops(bf16), 1e12), " TFLOP/s in bf16 and f16, ",
             rounded(gpu.peak_flops(f32, true), 1e12), " in TF32, ", rounded(gpu.peak_flops(f32), 1e12), " in f32, ",
             rounded(gpu.peak_flops(f64), 1e12), " in f64");
}

void tell_gpu(int index) {
  const DeviceProperties gpu = device_properties({Device::cuda, index});
  line(str("cuda:", index), str(gpu.name, " (", gpu.id, "), compute capability ", gpu.major, ".", gpu.minor));
  line("", str(gpu.multiprocessors, " multiprocessors at ", rounded(gpu.clock, 1e9), " GHz, ", gib(gpu.memory), " at ",
               rounded(gpu.memory_bandwidth, 1e12), " TB/s"));
  line("", peaks(gpu));
}

void info() {
  const DeviceProperties cpu = device_properties();
  std::cout << "loom " << LOOM_VERSION << "\n";
  line("processor", str(cpu.name, ", ", cpu.multiprocessors, " cores and ", gib(cpu.memory), " for this process"));
  line("kernels", std::string(cpu_instruction_set()));
  line("threads", std::to_string(num_threads()));
  line("oneDNN", onednn::description());
  line("MPI", mpi_description());
  line("CUDA", cuda_description());
  if (!cuda_libraries().empty()) line("libraries", cuda_libraries());
  line("NCCL", nccl_description());
  for (int i = 0; i < device_count(Device::cuda); ++i) tell_gpu(i);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Loom: tensors, gradients and distributed training in C++20");
  app.set_version_flag("--version", LOOM_VERSION);
  app.require_subcommand(1);
  app.add_subcommand("info", "What this installation is, and what it finds on this machine")->callback(info);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  } catch (const Error& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
