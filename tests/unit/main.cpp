// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include <doctest/doctest.h>

#include <loom/accelerators/cpu.h>
#include <loom/accelerators/error.h>

// All kernels are of the instruction set that LOOM_CPU asks for; where there is none, the tier is skipped (77).
// LOOM_TEST_KERNELS asks for a set too, but for that of unit/*, which is not tested twice.
int main(int argc, char** argv) {
  try {
    const std::string_view chosen = loom::cpu_instruction_set();
    if (const char* const other = std::getenv("LOOM_TEST_KERNELS")) {
      if (other == chosen) {
        std::printf("skipped: unit/* run the kernels of %s\n", other);
        return 77;
      }
      setenv("LOOM_CPU", other, 1);
      unsetenv("LOOM_TEST_KERNELS");
      execv("/proc/self/exe", argv);
      std::perror("execv");
      return 1;
    }
  } catch (const loom::Error& error) {
    std::printf("skipped: %s\n", error.what());
    return 77;
  }
  return doctest::Context(argc, argv).run();
}
