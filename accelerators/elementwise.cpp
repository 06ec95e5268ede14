#include <array>
#include <cstddef>

#include <loom/accelerators/elementwise.h>

namespace loom {

namespace {

constexpr std::array unary_names = {
#define UNARY(name, ...) #name,
#define UNARY_P(name, ...) #name,
#define STEP(name, ...) #name,
#define PREDICATE(name, ...) #name,
#include <loom/accelerators/elementwise.def>
};

constexpr std::array unary_kinds = {
#define UNARY(name, kind, ...) ElementwiseKind::kind,
#define UNARY_P(name, p, q, kind, ...) ElementwiseKind::kind,
#define STEP(name, ...) ElementwiseKind::numeric,
#define PREDICATE(name, ...) ElementwiseKind::predicate,
#include <loom/accelerators/elementwise.def>
};

constexpr std::array binary_names = {
#define BINARY(name, ...) #name,
#define COMPARE(name, ...) #name,
#define BITWISE(name, ...) #name,
#include <loom/accelerators/elementwise.def>
};

constexpr std::array binary_kinds = {
#define BINARY(name, kind, ...) ElementwiseKind::kind,
#define COMPARE(name, ...) ElementwiseKind::predicate,
#define BITWISE(name, ...) ElementwiseKind::bitwise,
#include <loom/accelerators/elementwise.def>
};

}  // namespace

const char* name_of(Unary op) { return unary_names[static_cast<size_t>(op)]; }
const char* name_of(Binary op) { return binary_names[static_cast<size_t>(op)]; }
ElementwiseKind kind_of(Unary op) { return unary_kinds[static_cast<size_t>(op)]; }
ElementwiseKind kind_of(Binary op) { return binary_kinds[static_cast<size_t>(op)]; }

}  // namespace loom
