// Elementwise functions, optimizers, and copies between layouts.
#include <map>

#include <loom/loom.h>
#include <loom/nn/optim/adam.h>
#include <loom/nn/optim/sgd.h>

#include "operation.h"

namespace bench {

using namespace loom;

Tensor softplus_of(const Tensor& x) { return softplus(x); }

// map FUNCTION forward|backward COUNT
Operation map(const Case& given) {
  static const std::map<std::string, Tensor (*)(const Tensor&)> functions{
      {"relu", relu},       {"exp", exp},   {"gelu", gelu}, {"gelu_tanh", gelu_tanh}, {"tanh", tanh},
      {"sigmoid", sigmoid}, {"erfc", erfc}, {"erf", erf},   {"mish", mish},           {"softplus", softplus_of}};
  const auto f = functions.at(given.word(1));
  const int64_t n = given.number(3);
  const Tensor x = randn({n});
  if (given.is(2, "forward", "backward"))
    return {.unit = "ms", .call = [=] { keep(f(x)); }, .cost = {.bytes = 8 * count(n)}};
  Tensor(x).requires_grad_();
  const Tensor y = f(x), seed = randn({n});
  return {
      .unit = "ms", .call = [=] { keep(grad(y, x, seed, {.retain_graph = true})); }, .cost = {.bytes = 12 * count(n)}};
}

// add same|row|column ROWS COLUMNS: [ROWS, COLUMNS] + itself's shape, [COLUMNS] or [ROWS, 1]
Operation add(const Case& given) {
  const int64_t rows = given.number(2), columns = given.number(3);
  const bool same = given.word(1) == "same";
  const Tensor b = same ? randn({rows, columns}) : given.is(1, "row", "column") ? randn({columns}) : randn({rows, 1});
  return {.unit = "ms",
          .call = [a = randn({rows, columns}), b] { keep(a + b); },
          .cost = {.bytes = (same ? 12 : 8) * count(rows * columns)}};
}

// copy COUNT: into memory that is there
Operation copied(const Case& given) {
  const int64_t n = given.number(1);
  return {.unit = "ms",
          .call = [from = randn({n}), to = empty({n})] { keep(to.copy_(from)); },
          .cost = {.bytes = 8 * count(n)}};
}

// pow COUNT: both operands are tensors
Operation power_of(const Case& given) {
  const int64_t n = given.number(1);
  return {.unit = "ms",
          .call = [a = rand({n}) + 0.5, b = randn({n})] { keep(pow(a, b)); },
          .cost = {.bytes = 12 * count(n)}};
}

// dropout COUNT: no gradient is recorded, so nobody needs what was kept
Operation dropout_of(const Case& given) {
  const int64_t n = given.number(1);
  return {.unit = "ms", .call = [x = randn({n})] { keep(dropout(x, 0.1)); }, .cost = {.bytes = 8 * count(n)}};
}

// dropout_both COUNT: forward as in training, and backward from what was kept
Operation dropout_both(const Case& given) {
  const int64_t n = given.number(1);
  const Tensor x = randn({n}).requires_grad_(), seed = randn({n});
  const double mask = sizeof(float) / static_cast<double>(item_size(default_dtype()));
  return {.unit = "ms",
          .call = [=] { keep(grad(dropout(x, 0.1), x, seed)); },
          .cost = {.bytes = (16 + 2 * mask) * count(n)}};
}

// optimizer adam|adamw|sgd TENSORS COUNT: a step over that many tensors of COUNT floats each; sgd with momentum.
Operation optimizer(const Case& given) {
  const bool adam = given.word(1) == "adam", sgd = !adam && given.is(1, "sgd", "adamw");
  const int64_t tensors = given.number(2), n = given.number(3);
  std::vector<NamedTensor> parameters;
  for (int64_t i = 0; i < tensors; ++i) {
    parameters.push_back({std::to_string(i), Parameter(randn({n}))});
    parameters.back().tensor.set_grad(randn({n}));
  }
  std::shared_ptr<optim::Optimizer> made;
  if (sgd)
    made = std::make_shared<optim::SGD>(parameters, optim::SgdOptions{.momentum = 0.9});
  else if (adam)
    made = std::make_shared<optim::Adam>(parameters);
  else
    made = std::make_shared<optim::AdamW>(parameters);
  return {.unit = tensors > 1 ? "us" : "ms",
          .call = [made] { made->step(); },
          .cost = {.bytes = (sgd ? 20 : 28) * count(tensors * n)}};
}

// transpose matrix ROWS COLUMNS; transpose nhwc N C H: a copy of the transposed view
Operation transposed(const Case& given) {
  const bool matrix = given.is(1, "matrix", "nhwc");
  const Tensor view =
      matrix ? randn({given.number(2), given.number(3)}).transpose(0, 1)
             : randn({given.number(2), given.number(3), given.number(4), given.number(4)}).permute({0, 2, 3, 1});
  return {.unit = "ms", .call = [view] { keep(view.contiguous()); }, .cost = {.bytes = 8 * count(view.numel())}};
}

// strided relu|add ROWS COLUMNS: of every second column, all of whose cache lines must be read; add: of a matrix and a
// transposed one.
Operation strided(const Case& given) {
  const int64_t rows = given.number(2), columns = given.number(3);
  const Tensor x = randn({rows, columns});
  if (given.is(1, "relu", "add"))
    return {.unit = "ms",
            .call = [view = x.slice(1, 0, columns, 2)] { keep(relu(view)); },
            .cost = {.bytes = 6 * count(rows * columns)}};
  return {.unit = "ms",
          .call = [x, view = randn({columns, rows}).transpose(0, 1)] { keep(x + view); },
          .cost = {.bytes = 12 * count(rows * columns)}};
}

// cat DIM ROWS COLUMNS: two such matrices
Operation joined(const Case& given) {
  const int dim = static_cast<int>(given.exact(1));
  const int64_t rows = given.number(2), columns = given.number(3);
  return {.unit = "ms",
          .call = [both = std::vector<Tensor>{randn({rows, columns}), randn({rows, columns})},
                   dim] { keep(cat(both, dim)); },
          .cost = {.bytes = 16 * count(rows * columns)}};
}

// flip DIM ROWS COLUMNS
Operation flipped(const Case& given) {
  const int64_t dim = given.exact(1), rows = given.number(2), columns = given.number(3);
  return {.unit = "ms",
          .call = [x = randn({rows, columns}), dim] { keep(flip(x, {dim})); },
          .cost = {.bytes = 8 * count(rows * columns)}};
}

}  // namespace bench
