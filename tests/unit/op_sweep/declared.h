// SPDX-License-Identifier: Apache-2.0
// Which functions there are, read from the headers: tests that must leave none out ask here.
#pragma once

#include <map>
#include <string>

namespace loom::sweep {

// Name -> header, of every function of autograd/ops/*.h that returns tensors (elementwise ops stand in tables).
std::map<std::string, std::string> declared_functions();
// Name -> how many tensors it takes at most, those of its options too; a list of tensors counts for 2.
std::map<std::string, size_t> declared_operands();

}  // namespace loom::sweep
