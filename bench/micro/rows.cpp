// Operations over the rows of a matrix, and sums.
#include <cmath>

#include <loom/loom.h>

#include "operation.h"

namespace bench {

using namespace loom;

namespace {

// OP forward|backward ROWS COLUMNS, f of x [ROWS, COLUMNS]; bytes: of one element in forward and in backward.
template <class F>
Operation over_rows(const Case& given, double forward_bytes, double backward_bytes, const F& f) {
  const int64_t rows = given.number(2), columns = given.number(3);
  const Tensor x = randn({rows, columns});
  if (given.is(1, "forward", "backward"))
    return {.unit = "ms", .call = [=] { keep(f(x)); }, .cost = {.bytes = forward_bytes * count(rows * columns)}};
  Tensor(x).requires_grad_();
  const Tensor y = f(x), seed = randn(y.shape());
  return {.unit = "ms",
          .call = [=] { keep(grad(y, x, seed, {.retain_graph = true})); },
          .cost = {.bytes = backward_bytes * count(rows * columns)}};
}

// Of numbers that are 8 bytes whatever the dtype is, in bytes of f32.
double of_i64(int64_t n) { return 32 / static_cast<double>(item_size(default_dtype())) * count(n); }

// How many of `rows` are among n that were drawn of them, on average: each is read once, then the caches have it.
double drawn(int64_t n, int64_t rows) { return count(rows) * -std::expm1(count(n) * std::log1p(-1 / count(rows))); }

}  // namespace

Operation softmax_rows(const Case& given) {
  return over_rows(given, 8, 12, [](const Tensor& x) { return softmax(x, 1); });
}

Operation layer_norm_rows(const Case& given) {
  const int64_t columns = given.number(3);
  return over_rows(given, 8, 12, [columns, weight = ones({columns}), bias = zeros({columns})](const Tensor& x) {
    return layer_norm(x, {columns}, weight, bias);
  });
}

Operation rms_norm_rows(const Case& given) {
  const int64_t columns = given.number(3);
  return over_rows(given, 8, 12,
                   [columns, weight = ones({columns})](const Tensor& x) { return rms_norm(x, {columns}, weight); });
}

// batch_norm forward|backward N C H: of images, in training. Forward reads them twice, backward them and the gradient.
Operation batch_norm_images(const Case& given) {
  const int64_t n = given.number(2), channels = given.number(3), height = given.number(4);
  const Tensor x = randn({n, channels, height, height}), weight = ones({channels}), bias = zeros({channels});
  const auto f = [=](const Tensor& images) { return batch_norm(images, {}, {}, weight, bias, true); };
  if (given.is(1, "forward", "backward"))
    return {.unit = "ms", .call = [=] { keep(f(x)); }, .cost = {.bytes = 12 * count(x.numel())}};
  Tensor(x).requires_grad_();
  const Tensor y = f(x), seed = randn(y.shape());
  return {.unit = "ms",
          .call = [=] { keep(grad(y, x, seed, {.retain_graph = true})); },
          .cost = {.bytes = 20 * count(x.numel())}};
}

Operation cross_entropy_rows(const Case& given) {
  const Tensor target = randint(0, given.number(3), {given.number(2)});
  return over_rows(given, 4, 8, [target](const Tensor& x) { return cross_entropy(x, target); });
}

// sum|amax all|rows|columns ROWS COLUMNS: of everything, along the rows, along the columns.
// sum|amax channels N C H: over all but the channels of images.
Operation reduction(const Case& given) {
  const std::string& over = given.word(1);
  const bool images = over == "channels";
  const int64_t first = given.number(2), second = given.number(3), height = images ? given.number(4) : 0;
  const Dims shape = images ? Dims{first, second, height, height} : Dims{first, second};
  const Dims dims = images ? Dims{0, 2, 3} : over == "all" ? Dims{} : Dims{given.is(1, "rows", "columns") ? 1 : 0};
  const int64_t results = over == "all" ? 1 : over == "rows" ? first : second;
  const Tensor x = randn(shape);
  const double bytes = 4 * count(x.numel() + results);
  if (given.is(0, "sum", "amax")) return {.unit = "ms", .call = [=] { keep(sum(x, dims)); }, .cost = {.bytes = bytes}};
  return {.unit = "ms", .call = [=] { keep(amax(x, dims)); }, .cost = {.bytes = bytes}};
}

// max rows|columns ROWS COLUMNS: the largest of each, and where the first of them is, an i64
Operation largest(const Case& given) {
  const bool of_rows = given.is(1, "rows", "columns");
  const int64_t rows = given.number(2), columns = given.number(3), many = of_rows ? rows : columns;
  return {.unit = "ms",
          .call = [x = randn({rows, columns}), dim = of_rows ? 1 : 0] { keep(max(x, dim)); },
          .cost = {.bytes = 4 * count(rows * columns) + of_i64(many) + 4 * count(many)}};
}

// embedding forward|backward VOCABULARY WIDTH COUNT
Operation embedding_rows(const Case& given) {
  const int64_t vocabulary = given.number(2), width = given.number(3), n = given.number(4);
  const Tensor weight = randn({vocabulary, width}), index = randint(0, vocabulary, {n});
  if (given.is(1, "forward", "backward"))
    return {.unit = "ms",
            .call = [=] { keep(embedding(index, weight)); },
            .cost = {.bytes = 4 * (drawn(n, vocabulary) + count(n)) * count(width) + of_i64(n)}};
  Tensor(weight).requires_grad_();
  const Tensor y = embedding(index, weight), seed = randn(y.shape());
  return {.unit = "ms",
          .call = [=] { keep(grad(y, weight, seed, {.retain_graph = true})); },
          .cost = {.bytes = 4 * count((n + vocabulary) * width) + of_i64(n)}};
}

// index_select ROWS WIDTH COUNT: rows by number
Operation rows_selected(const Case& given) {
  const int64_t rows = given.number(1), width = given.number(2), n = given.number(3);
  return {.unit = "ms",
          .call = [x = randn({rows, width}), index = randint(0, rows, {n})] { keep(index_select(x, 0, index)); },
          .cost = {.bytes = 4 * (drawn(n, rows) + count(n)) * count(width) + of_i64(n)}};
}

// nonzero PERCENT COUNT: of so many set booleans in a hundred
Operation places_of_set(const Case& given) {
  const int64_t percent = given.exact(1), n = given.number(2);
  return {.unit = "ms",
          .call = [x = randint(0, 100, {n}) < percent] { keep(nonzero(x)); },
          .cost = {.bytes = (1 + 0.08 * count(percent)) * count(n)}};
}

// sort f32|i64 RANGE ROWS COLUMNS: along the rows; i64: of numbers below RANGE, f32: normal ones times RANGE
Operation sorted_rows(const Case& given) {
  const int64_t range = given.exact(2), rows = given.number(3), columns = given.number(4);
  const Tensor x = given.is(1, "i64", "f32") ? randint(0, range, {rows, columns}) : randn({rows, columns}) * range;
  return {.unit = "ms", .call = [x] { keep(sort(x, 1)); }, .cost = {}};
}

}  // namespace bench
