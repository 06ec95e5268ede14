#include <loom/accelerators/cpu/cpu.h>

namespace loom {

// Never destroyed: tensors in static storage give their memory back after the destructors of this file would have run.
Cpu& cpu_accelerator() {
  static Cpu* const cpu = new Cpu;
  return *cpu;
}

}  // namespace loom
