#include <loom/data/data_loader.h>

namespace loom::data {

namespace {

uint64_t mix(uint64_t x) {  // splitmix64: neighbouring numbers give unrelated seeds
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

}  // namespace

Context loading_context(const Context& caller, std::optional<Device> device) {
  Context out = caller;
  out.grad_mode = false;
  out.default_device = Device();  // a loader gives host memory; who loops moves it
  out.data_rank = 0;              // a sample is the same whichever rank gets it
  out.pinned_for = device;
  return out;
}

Generator sample_generator(uint64_t seed, int64_t epoch, uint64_t ticket) {
  return {mix(mix(mix(seed) + static_cast<uint64_t>(epoch)) + ticket), 0};
}

}  // namespace loom::data
