#include <loom/accelerators/onednn/library.h>

#include <cstdlib>
#include <string_view>

#include <loom/accelerators/cpu.h>
#include <loom/accelerators/onednn.h>

// Of the OpenMP that the library brings with it; null where it brings none.
extern "C" {
[[gnu::weak]] void omp_set_num_threads(int count);
[[gnu::weak]] int omp_get_max_threads();
}

namespace loom {

namespace {

std::string version() {
  const dnnl_version_t& v = *dnnl_version();
  return str("oneDNN ", v.major, ".", v.minor, ".", v.patch);
}

std::string_view wanted() {
  const char* const text = std::getenv("LOOM_ONEDNN");
  return text == nullptr ? "" : text;
}

// Whoever names an instruction set means all kernels. False where the program has used the library before.
bool keeps_to_instruction_set() {
  if (std::getenv("LOOM_CPU") == nullptr) return true;
  const std::string_view set = cpu_instruction_set();
  using dnnl::cpu_isa;
  return dnnl::set_max_cpu_isa(set == "avx512bf16" ? cpu_isa::avx512_core_bf16
                               : set == "avx512"   ? cpu_isa::avx512_core
                               : set == "avx2"     ? cpu_isa::avx2
                                                   : cpu_isa::sse41) == dnnl::status::success;
}

// Empty: there is no reason.
std::string reason_against() {
  if (wanted() == "0") return "LOOM_ONEDNN=0";
  const unsigned runtime = dnnl_version()->cpu_runtime;
  const bool openmp = runtime == DNNL_RUNTIME_OMP && omp_set_num_threads != nullptr && omp_get_max_threads != nullptr;
  if (!openmp && runtime != DNNL_RUNTIME_SEQ)
    return str(version(), " is not used: only with OpenMP, or without threads, is it known to keep to one thread");
  if (!keeps_to_instruction_set())
    return str(version(), " is not used: the program did so before, and now LOOM_CPU cannot bound it");
  return "";
}

const std::string& against() {
  static const auto* const reason = new std::string(reason_against());  // never destroyed: see cpu/cpu.cpp
  return *reason;
}

}  // namespace

bool onednn::in_use() { return against().empty(); }
std::string onednn::description() { return in_use() ? version() : against(); }

const dnnl::engine& onednn::engine() {
  static const auto* const cpu = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *cpu;
}

const onednn::Limits& onednn::limits() {
  static const Limits chosen =
      wanted() == "all" ? Limits{.all = true, .least_flops = 0, .flops_of_a_part = 20'000, .side_of_a_part = 16}
                        : Limits{};
  return chosen;
}

onednn::OneThread::OneThread() {
  if (omp_get_max_threads == nullptr) return;
  before_ = omp_get_max_threads();
  if (before_ != 1) omp_set_num_threads(1);
}

onednn::OneThread::~OneThread() {
  if (before_ > 1) omp_set_num_threads(before_);
}

std::optional<dnnl::memory::data_type> onednn::type_of(DType dtype) {
  if (dtype == DType::f32) return dnnl::memory::data_type::f32;
  if (dtype == DType::bf16) return dnnl::memory::data_type::bf16;
  return std::nullopt;
}

dnnl::memory::desc onednn::desc_of(const View& x) {
  dnnl::memory::dims shape(x.shape.begin(), x.shape.end()), strides(x.strides.begin(), x.strides.end());
  for (size_t d = shape.size(); d-- > 0;)  // a stride that nobody uses may be any
    if (shape[d] == 1) strides[d] = d + 1 < shape.size() ? strides[d + 1] * shape[d + 1] : 1;
  return {shape, type_of(x.dtype).value(), strides};
}

}  // namespace loom
