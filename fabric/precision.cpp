#include <loom/fabric/precision.h>

#include <array>

#include <loom/accelerators/error.h>

namespace loom {

namespace {

struct Row {
  std::string_view name, alias;
  DType dtype;
};
constexpr std::array<Row, 2> rows = {{{"32-true", "32", DType::f32}, {"64-true", "64", DType::f64}}};

}  // namespace

std::shared_ptr<Precision> make_precision(std::string_view name) {
  std::string names;
  for (const Row& row : rows) {
    if (name == row.name || name == row.alias) return std::make_shared<TruePrecision>(row.name, row.dtype);
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  fail("unknown precision '", name, "'; available: ", names);
}

}  // namespace loom
