// SPDX-License-Identifier: Apache-2.0
// No public op is left out of the comparison with PyTorch.
#include <loom/autograd/op.h>

#include "golden.h"
#include "op_sweep/declared.h"

namespace {

using namespace loom;

// Of a file's cases "op/what", the ops.
void add_ops(std::set<std::string>& ops, const std::string& file) {
  for (const std::string& name : golden::cases(golden::file(file))) ops.insert(name.substr(0, name.find('/')));
}

const char* const rows[] = {
#define OP(name, ...) #name,
#include <loom/autograd/ops.def>
};

}  // namespace

TEST_CASE("every public op is compared with PyTorch") {
  std::set<std::string> ops = {"cast",             // the casts of golden_dtypes_test.cpp
                               "recurrent_steps",  // the recurrent layers of golden_layers_test.cpp
                               "to_device"};       // a copy
  for (const char* const file : {"operators", "arrays", "elementwise"}) add_ops(ops, file);
  for (const char* const name : rows) CHECK_MESSAGE(ops.contains(name), name);
  for (const auto& [function, header] : sweep::declared_functions())
    CHECK_MESSAGE(ops.contains(function), function, " of ", header);
#define UNARY(name, ...) CHECK(ops.contains(#name));
#define UNARY_P(name, ...) CHECK(ops.contains(#name));
#define STEP(name, ...) CHECK(ops.contains(#name));
#define PREDICATE(name, ...) CHECK(ops.contains(#name));
#define BINARY(name, ...) CHECK(ops.contains(#name));
#define COMPARE(name, ...) CHECK(ops.contains(#name));
#define BITWISE(name, ...) CHECK(ops.contains(#name));
#include <loom/accelerators/elementwise.def>
}
