// SPDX-License-Identifier: Apache-2.0
// Views and rearrangements.
#include "case.h"

namespace loom::sweep {

namespace {

void add_views(Cases& c) {
  c.add("reshape", "", {real({2, 3, 4})}, [](In x) { return reshape(x[0], {6, 4}); });
  c.add("reshape", "-1", {real({2, 3, 4})}, [](In x) { return reshape(x[0], {4, -1, 2}); });
  c.add("reshape", "copy", {real({2, 3, 4})}, [](In x) { return reshape(transpose(x[0], 0, 2), {6, 4}); });
  c.add("reshape", "scalar", {real({})}, [](In x) { return reshape(x[0], {1, 1}); });
  c.add("reshape", "empty", {real({2, 0})}, [](In x) { return reshape(x[0], {0, 5}); });
  c.add("flatten", "", {real({2, 3, 2})}, [](In x) { return flatten(x[0]); });
  c.add("flatten", "from 1", {real({2, 3, 2})}, [](In x) { return flatten(x[0], 1); });
  c.add("flatten", "scalar", {real({})}, [](In x) { return flatten(x[0]); });
  c.add("unflatten", "", {real({2, 6})}, [](In x) { return unflatten(x[0], 1, {2, -1}); });
  c.add("transpose", "", {real({2, 3, 4})}, [](In x) { return transpose(x[0], 0, 2); });
  c.add("transpose", "negative", {real({2, 3, 4})}, [](In x) { return transpose(x[0], -1, -2); });
  c.add("permute", "", {real({2, 3, 4})}, [](In x) { return permute(x[0], {2, 0, 1}); });
  c.add("permute", "negative", {real({2, 3, 4})}, [](In x) { return permute(x[0], {-1, 0, -2}); });
  c.add("movedim", "", {real({2, 3, 4})}, [](In x) { return movedim(x[0], 0, -1); });
  c.add("movedim", "back", {real({2, 3, 4})}, [](In x) { return movedim(x[0], 2, 1); });
  c.add("squeeze", "all", {real({1, 3, 1})}, [](In x) { return squeeze(x[0]); });
  c.add("squeeze", "one", {real({1, 3, 1})}, [](In x) { return squeeze(x[0], -1); });
  c.add("squeeze", "none", {real({1, 3, 1})}, [](In x) { return squeeze(x[0], 1); });
  c.add("unsqueeze", "", {real({2, 3})}, [](In x) { return unsqueeze(x[0], 1); });
  c.add("unsqueeze", "last", {real({2, 3})}, [](In x) { return unsqueeze(x[0], -1); });
  c.add("unsqueeze", "scalar", {real({})}, [](In x) { return unsqueeze(x[0], 0); });
  c.add("expand", "", {real({3, 1})}, [](In x) { return expand(x[0], {2, 3, 4}); }).sum_of(8);
  c.add("expand", "-1", {real({3, 1})}, [](In x) { return expand(x[0], {-1, 4}); }).sum_of(4);
  c.add("expand", "scalar", {real({})}, [](In x) { return expand(x[0], {2, 2}); }).sum_of(4);
  c.add("expand", "to nothing", {real({1, 3})}, [](In x) { return expand(x[0], {0, 3}); });
}

void add_parts(Cases& c) {
  c.add("slice", "", {real({5, 3})}, [](In x) { return slice(x[0], 0, 1, 4); });
  c.add("slice", "step", {real({7, 3})}, [](In x) { return slice(x[0], 0, 1, {}, 3); });
  c.add("slice", "step to the end", {real({2, 7})}, [](In x) { return slice(x[0], 1, {}, {}, 2); });
  c.add("slice", "negative", {real({5, 3})}, [](In x) { return slice(x[0], -2, -3, -1); });
  c.add("slice", "beyond the end", {real({5, 3})}, [](In x) { return slice(x[0], 0, 3, 100); });
  c.add("slice", "nothing", {real({5, 3})}, [](In x) { return slice(x[0], 0, 4, 2); });
  c.add("narrow", "", {real({5, 3})}, [](In x) { return narrow(x[0], 0, 1, 3); });
  c.add("narrow", "negative", {real({5, 3})}, [](In x) { return narrow(x[0], 1, -2, 2); });
  c.add("select", "", {real({4, 3})}, [](In x) { return select(x[0], 0, 2); });
  c.add("select", "negative", {real({4, 3})}, [](In x) { return select(x[0], -1, -2); });
  c.add("select", "operator []", {real({4})}, [](In x) { return x[0][1]; });
  c.add("diagonal", "", {real({3, 4})}, [](In x) { return diagonal(x[0]); });
  c.add("diagonal", "above", {real({3, 4})}, [](In x) { return diagonal(x[0], 1); });
  c.add("diagonal", "below, batch", {real({4, 2, 3})}, [](In x) { return diagonal(x[0], -1, 0, 2); });
  c.add("split", "", {real({5, 2})}, [](In x) { return split(x[0], 2)[2]; });
  c.add("split", "sizes", {real({2, 5})}, [](In x) { return split(x[0], std::vector<int64_t>{1, 4}, 1)[1]; });
  c.add("chunk", "", {real({5, 2})}, [](In x) { return chunk(x[0], 3)[1]; });
  c.add("unbind", "", {real({3, 2})}, [](In x) { return unbind(x[0], 1)[1] * unbind(x[0], 1)[0]; });
}

void add_copies(Cases& c) {
  c.add("contiguous", "", {real({2, 3})}, [](In x) { return contiguous(transpose(x[0], 0, 1)); });
  c.add("clone", "", {real({2, 3})}, [](In x) { return clone(x[0]); });
  c.add("clone", "empty", {real({0, 3})}, [](In x) { return clone(x[0]); });
  // Linear, so large differences are exact but for the rounding to f32.
  c.add("cast", "", {real({2, 3})}, [](In x) {
     return x[0].to(x[0].dtype() == f64 ? f32 : f64).to(x[0].dtype());
   }).differences(0.25, 1e-5);
  c.add("to_device", "", {real({2, 3})}, [](In x) { return x[0].to(Device(Device::cpu)).clone(); });
  c.add("cat", "", {real({2, 3}), real({1, 3})}, [](In x) { return cat({x[0], x[1]}); });
  c.add("cat", "dim -1, three", {real({2, 1}), real({2, 3}), real({2, 2})}, [](In x) {
    return cat({x[0], x[1], x[2]}, -1);
  });
  c.add("cat", "one empty", {real({2, 3}), real({0, 3})}, [](In x) { return cat({x[0], x[1]}); });
  c.add("cat", "same twice", {real({2, 3})}, [](In x) { return cat({x[0], x[0]}, 1); });
  c.add("concat", "", {real({2}), real({3})}, [](In x) { return concat({x[0], x[1]}); });
  c.add("stack", "", {real({2, 3}), real({2, 3})}, [](In x) { return stack({x[0], x[1]}, 1); });
  c.add("stack", "scalars", {real({}), real({})}, [](In x) { return stack({x[0], x[1]}); });
  c.add("repeat", "", {real({2, 3})}, [](In x) { return repeat(x[0], {2, 1, 2}); }).sum_of(4);
  c.add("repeat", "none", {real({2, 3})}, [](In x) { return repeat(x[0], {0, 1}); });
  c.add("repeat_interleave", "", {real({2, 3})}, [](In x) { return repeat_interleave(x[0], 2, 1); }).sum_of(2);
  c.add("flip", "", {real({2, 3})}, [](In x) { return flip(x[0], {0}); });
  c.add("flip", "both", {real({2, 3})}, [](In x) { return flip(x[0], {-1, 0}); });
  c.add("roll", "", {real({2, 5})}, [](In x) { return roll(x[0], 2, 1); });
  c.add("roll", "back", {real({2, 5})}, [](In x) { return roll(x[0], -7, 1); });
  c.add("triu", "", {real({3, 4})}, [](In x) { return triu(x[0]); });
  c.add("triu", "batch, diagonal", {real({2, 3, 3})}, [](In x) { return triu(x[0], 1); });
  c.add("tril", "", {real({4, 3})}, [](In x) { return tril(x[0]); });
  c.add("tril", "batch, diagonal", {real({2, 3, 3})}, [](In x) { return tril(x[0], -1); });
  c.add("pad", "", {real({2, 3})}, [](In x) { return pad(x[0], {1, 2}); });
  c.add("pad", "two dimensions, value", {real({2, 3})}, [](In x) { return pad(x[0], {1, 0, 0, 2}, 0.5); });
  c.add("pad", "crop", {real({4, 4})}, [](In x) { return pad(x[0], {-1, 2, 0, -1}); });
  c.add("sum_to", "", {real({2, 3, 4})}, [](In x) { return sum_to(x[0], {3, 1}); }).sum_of(8);
  c.add("sum_to", "same", {real({2, 3})}, [](In x) { return sum_to(x[0], {2, 3}); });
  c.add("sum_to", "scalar", {real({2, 3})}, [](In x) { return sum_to(x[0], {}); }).sum_of(6);
}

}  // namespace

void add_shape_cases(Cases& cases) {
  add_views(cases);
  add_parts(cases);
  add_copies(cases);
}

}  // namespace loom::sweep
