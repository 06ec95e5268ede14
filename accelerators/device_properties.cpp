#include <loom/accelerators/device_properties.h>

#include <array>

namespace loom {

namespace {

// Operations a cycle and multiprocessor: the architectures' white papers (A100, GA102, AD102, H100, B200, GB202), whose
// rates at their boost clocks these are.
struct Rates {
  int major, minor;
  double f64, f32, tf32, half;
};
constexpr std::array<Rates, 6> known = {{{8, 0, 128, 128, 1024, 2048},
                                         {8, 6, 4, 256, 512, 1024},
                                         {8, 9, 4, 256, 512, 1024},
                                         {9, 0, 256, 256, 2048, 4096},
                                         {10, 0, 128, 256, 4096, 8192},
                                         {12, 0, 4, 256, 512, 1024}}};

double rate(const Rates& r, DType dtype, bool tf32) {
  if (is_half(dtype)) return r.half;
  if (dtype == DType::f32) return tf32 ? r.tf32 : r.f32;
  return dtype == DType::f64 ? r.f64 : 0;
}

}  // namespace

double DeviceProperties::peak_flops(DType dtype, bool tf32) const {
  for (const Rates& r : known)
    if (r.major == major && r.minor == minor) return rate(r, dtype, tf32) * multiprocessors * clock;
  return 0;
}

}  // namespace loom
