#include <array>
#include <ostream>

#include <loom/accelerators/dtype.h>

namespace loom {

namespace {
constexpr std::array<std::string_view, dtype_count> names = {"f64", "f32", "f16", "bf16",
                                                             "i64", "i32", "u8",  "boolean"};
}  // namespace

std::string to_string(DType t) { return std::string(names[static_cast<int>(t)]); }

DType dtype_from_string(std::string_view name) {
  for (int i = 0; i < dtype_count; ++i)
    if (names[i] == name) return static_cast<DType>(i);
  fail("unknown dtype '", name, "'; known: f64, f32, f16, bf16, i64, i32, u8, boolean");
}

DType promote(DType a, DType b) {
  if (a == b) return a;
  if (is_floating(a) != is_floating(b)) return is_floating(a) ? a : b;
  if (is_floating(a)) {
    if (a == f64 || b == f64) return f64;
    return f32;  // f32 with a 16-bit type, or f16 with bf16
  }
  if (a == boolean) return b;
  if (b == boolean) return a;
  return a == i64 || b == i64 ? i64 : i32;  // u8 with i32 or i64, i32 with i64
}

std::ostream& operator<<(std::ostream& out, DType t) { return out << to_string(t); }

}  // namespace loom
