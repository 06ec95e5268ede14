#include <loom/accelerators/cpu.h>

#include <array>
#include <cstdlib>
#include <string>

#include <loom/accelerators/cpu/cpu.h>
#include <loom/accelerators/error.h>
#include <loom/accelerators/plugin.h>

namespace loom {

namespace {

constexpr std::string_view baseline = "portable";

struct InstructionSet {
  std::string_view name, built;  // built: which of LOOM_CPU_SETS has the kernels, or the baseline
  bool supported;                // by this processor
};

#if defined(__x86_64__)

bool has_avx2() {  // what compilers call x86-64-v3
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
         __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
}

bool has_avx512() {  // x86-64-v4
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

// Best first; the baseline is in the library itself, and uses SSE.
std::array<InstructionSet, 5> instruction_sets() {
  return {{{"avx512bf16", "avx512", has_avx512() && __builtin_cpu_supports("avx512bf16")},
           {"avx512", "avx512", has_avx512()},
           {"avx2", "avx2", has_avx2()},
           {baseline, baseline, true},
           {"sse", baseline, true}}};
}
#else
std::array<InstructionSet, 1> instruction_sets() { return {{{baseline, baseline, true}}}; }
#endif

struct Kernels {
  Accelerator* accelerator;
  std::string_view instruction_set;
};

// The kernels of a set; a null accelerator, and the reason in `why`, where this build has none.
Kernels kernels_of(const InstructionSet& set, std::string& why) {
  if (set.built == baseline) return {loom_cpu_kernels(), baseline};
  void* const entry = plugin_symbol(str("loom_cpu_", set.built), "loom_cpu_kernels", why);
  if (entry == nullptr) return {nullptr, set.name};
  return {reinterpret_cast<decltype(&loom_cpu_kernels)>(entry)(), set.name};
}

Kernels asked_for(std::string_view name) {
  std::string known;
  for (const InstructionSet& set : instruction_sets()) {
    known += str(known.empty() ? "" : ", ", set.name);
    if (set.name != name) continue;
    check(set.supported, "LOOM_CPU=", name, ": this processor lacks it");
    std::string why;
    const Kernels kernels = kernels_of(set, why);
    check(kernels.accelerator != nullptr, "LOOM_CPU=", name, ": ", why);
    return kernels;
  }
  fail("LOOM_CPU: expected one of ", known, ", got '", name, "'");
}

Kernels choose() {
  if (const char* const name = std::getenv("LOOM_CPU")) return asked_for(name);
  std::string why;
  for (const InstructionSet& set : instruction_sets()) {
    if (!set.supported) continue;
    if (const Kernels kernels = kernels_of(set, why); kernels.accelerator != nullptr) return kernels;
  }
  return {loom_cpu_kernels(), baseline};
}

const Kernels& chosen() {
  static const Kernels kernels = choose();
  return kernels;
}

}  // namespace

Accelerator& cpu_accelerator() { return *chosen().accelerator; }

std::string_view cpu_instruction_set() { return chosen().instruction_set; }

int largest_winograd() {
  static const int side = [] {
    const char* const text = std::getenv("LOOM_WINOGRAD");
    if (text == nullptr) return 4;
    const std::string_view wanted(text);
    check(wanted == "0" || wanted == "2" || wanted == "4", "LOOM_WINOGRAD: expected 0, 2 or 4, got '", wanted, "'");
    return wanted[0] - '0';
  }();
  return side;
}

}  // namespace loom
