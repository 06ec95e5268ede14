// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT
#include <cstdio>

#include <doctest/doctest.h>

#include <loom/accelerators/cpu.h>
#include <loom/accelerators/error.h>

// All kernels are of the instruction set that LOOM_CPU asks for; where there is none, the tier is skipped (77).
int main(int argc, char** argv) {
  try {
    loom::cpu_accelerator();
  } catch (const loom::Error& error) {
    std::printf("skipped: %s\n", error.what());
    return 77;
  }
  return doctest::Context(argc, argv).run();
}
