// SPDX-License-Identifier: Apache-2.0
// Reading and writing by position.
#include "case.h"

namespace loom::sweep {

namespace {

const char* const repeats = "places written twice";

void add_lists(Cases& c) {
  c.add("index_select", "", {real({4, 3}), integers({5}, 0, 4)}, [](In x) {
     return index_select(x[0], 0, x[1]);
   }).sum_of(5);
  c.add("index_select", "last", {real({2, 4}), integers({3}, 0, 4)}, [](In x) {
     return index_select(x[0], -1, x[1]);
   }).sum_of(5);
  c.add("index_select", "nothing", {real({2, 4}), integers({0}, 0, 4)},
        [](In x) { return index_select(x[0], 1, x[1]); });
  c.add("index_add", "", {real({4, 3}), integers({5}, 0, 4), real({5, 3})}, [](In x) {
     return index_add(x[0], 0, x[1], x[2]);
   }).sum_of(5);
  c.add("index_add", "last", {real({2, 4}), integers({3}, 0, 4), real({2, 3})}, [](In x) {
     return index_add(x[0], 1, x[1], x[2]);
   }).sum_of(5);
  c.add("gather", "", {real({4, 3}), integers({5, 3}, 0, 4)}, [](In x) { return gather(x[0], 0, x[1]); }).sum_of(5);
  c.add("gather", "smaller index", {real({4, 3}), integers({2, 2}, 0, 3)}, [](In x) { return gather(x[0], 1, x[1]); });
  c.add("gather", "scalar", {real({}), integers({}, 0, 1)}, [](In x) { return gather(x[0], 0, x[1]); });
  c.add("scatter", "", {real({5, 3}), unique_positions({2, 3}, 0, 5), real({2, 3})}, [](In x) {
     return scatter(x[0], 0, x[1], x[2]);
   }).not_expanded(repeats);
  c.add("scatter", "smaller index", {real({3, 5}), unique_positions({2, 3}, 1, 5), real({3, 4})}, [](In x) {
     return scatter(x[0], -1, x[1], x[2]);
   }).not_expanded(repeats);
  c.add("scatter_add", "", {real({3, 3}), integers({5, 3}, 0, 3), real({5, 3})}, [](In x) {
     return scatter_add(x[0], 0, x[1], x[2]);
   }).sum_of(5);
  c.add("scatter_add", "smaller index", {real({3, 5}), integers({2, 3}, 0, 5), real({3, 4})}, [](In x) {
     return scatter_add(x[0], 1, x[1], x[2]);
   }).sum_of(5);
  c.add("take_along_dim", "", {real({3, 4}), integers({3, 2}, 0, 4)},
        [](In x) { return take_along_dim(x[0], x[1], 1); });
  c.add("take_along_dim", "broadcast", {real({3, 4}), integers({1, 2}, 0, 4)},
        [](In x) { return take_along_dim(x[0], x[1], 1); });
}

void add_tables(Cases& c) {
  c.add("embedding", "", {integers({2, 3}, 0, 5), real({5, 4})}, [](In x) { return embedding(x[0], x[1]); }).sum_of(6);
  // The padding row is a constant here, so that differences see what gradients do; op_values_test.cpp checks that it
  // gets 0.
  c.add("embedding", "padding_idx", {integers({6}, 0, 3), real({1, 4}), constant(real({1, 4})), real({1, 4})},
        [](In x) {
          return embedding(x[0], cat({x[1], x[2], x[3]}), 1);
        })
      .sum_of(6);
  c.add("embedding", "scalar index", {integers({}, 0, 5), real({5, 4})}, [](In x) { return embedding(x[0], x[1]); });
  c.add("one_hot", "", {integers({2, 3}, 0, 4)}, [](In x) { return one_hot(x[0], 4); }).constant_result();
  c.add("one_hot", "classes from the largest", {integers({5}, 0, 4)}, [](In x) {
     return one_hot(x[0]);
   }).constant_result();
  c.add("nonzero", "", {whole({3, 4}, 0, 2)}, [](In x) { return nonzero(x[0]); }).constant_result();
  c.add("nonzero", "scalar", {whole({}, 1, 2)}, [](In x) { return nonzero(x[0]); }).constant_result();
  c.add("masked_select", "", {real({3, 4}), mask({3, 4})}, [](In x) { return masked_select(x[0], x[1]); });
  c.add("masked_select", "broadcast", {real({3, 4}), mask({4})}, [](In x) { return masked_select(x[0], x[1]); });
}

// The indices of a case; its tensors among them are the inputs from 1 on.
using Indices = std::function<std::vector<Index>(In)>;

void add_index(Cases& c, const char* what, const Dims& shape, std::vector<Input> tensors, const Indices& indices) {
  tensors.insert(tensors.begin(), real(shape));
  c.add("index", what, tensors, [indices](In x) { return index(x[0], indices(x)); }).sum_of(6);
}

void add_put(Cases& c, const char* what, const Dims& shape, const Dims& values, const Input& at, bool accumulate,
             const Indices& indices) {
  c.add("index_put", what, {real(shape), at, real(values)},
        [=](In x) { return index_put(x[0], indices(x), x[2], accumulate); })
      .sum_of(6)
      .not_expanded(repeats);
}

}  // namespace

void add_index_cases(Cases& c) {
  add_lists(c);
  add_tables(c);
  const Input two = integers({2}, -2, 2), square = integers({2, 2}, 0, 2);
  add_index(c, "position", {3, 4}, {}, [](In) -> std::vector<Index> { return {1}; });
  add_index(c, "slices", {5, 4}, {}, [](In) -> std::vector<Index> { return {Slice{1, {}, 2}, Slice{{}, -1}}; });
  add_index(c, "ellipsis", {2, 3, 4}, {}, [](In) -> std::vector<Index> { return {ellipsis, -1}; });
  add_index(c, "new axis", {2, 3}, {}, [](In) -> std::vector<Index> { return {new_axis, 0, new_axis}; });
  add_index(c, "list", {3, 4}, {two}, [](In x) -> std::vector<Index> { return {Index(x[1])}; });
  add_index(c, "list in the middle", {2, 3, 2}, {square}, [](In x) -> std::vector<Index> {
    return {Slice{}, Index(x[1])};
  });
  add_index(c, "adjoining lists", {2, 3, 2, 2}, {two, square}, [](In x) -> std::vector<Index> {
    return {Slice{}, Index(x[1]), Index(x[2])};
  });
  add_index(c, "separated lists", {2, 3, 2}, {two, square}, [](In x) -> std::vector<Index> {
    return {Index(x[1]), Slice{}, Index(x[2])};
  });
  add_index(c, "list and position", {2, 3, 3}, {two}, [](In x) -> std::vector<Index> {
    return {0, Slice{}, Index(x[1])};
  });
  add_index(c, "mask", {3, 4}, {mask({3})}, [](In x) -> std::vector<Index> { return {Index(x[1])}; });
  add_index(c, "mask of two dimensions", {3, 4, 2}, {mask({3, 4})},
            [](In x) -> std::vector<Index> { return {Index(x[1])}; });
  add_index(c, "mask and slice", {3, 4}, {mask({4})}, [](In x) -> std::vector<Index> {
    return {Slice{1, 3}, Index(x[1])};
  });
  add_index(c, "scalar tensor", {3, 4}, {integers({}, 0, 3)}, [](In x) -> std::vector<Index> { return {Index(x[1])}; });
  add_index(c, "empty list", {3, 4}, {integers({0}, 0, 3)}, [](In x) -> std::vector<Index> { return {Index(x[1])}; });
  add_put(c, "list", {5, 2}, {3, 2}, unique_positions({3}, 0, 5), false,
          [](In x) -> std::vector<Index> { return {Index(x[1])}; });
  add_put(c, "broadcast", {5, 2}, {2}, unique_positions({3}, 0, 5), false,
          [](In x) -> std::vector<Index> { return {Index(x[1])}; });
  add_put(c, "accumulate", {3, 2}, {5, 2}, integers({5}, -3, 3), true,
          [](In x) -> std::vector<Index> { return {Index(x[1])}; });
  add_put(c, "mask, number", {3, 4}, {}, mask({3, 4}), false, [](In x) -> std::vector<Index> { return {Index(x[1])}; });
  add_put(c, "slice and list", {3, 4}, {2, 2}, unique_positions({2}, 0, 4), false, [](In x) -> std::vector<Index> {
    return {Slice{1, {}}, Index(x[1])};
  });
}

}  // namespace loom::sweep
