// What an operation costs beside its arithmetic.
#include <loom/loom.h>

#include "operation.h"

namespace bench {

using namespace loom;

namespace {

Tensor chain(const Tensor& x, int64_t nodes) {
  const Tensor factor = ones({4});
  Tensor y = x;
  for (int64_t i = 0; i < nodes; ++i) y = y * factor;
  return y;
}

}  // namespace

// tiny_add plain|recorded
Operation tiny_add(const Case& given) {
  const Tensor a = randn({4}), b = randn({4});
  if (given.is(1, "recorded", "plain")) Tensor(a).requires_grad_();
  return {.unit = "ns", .call = [=] { keep(a + b); }};
}

// backward_node NODES: of a chain, each
Operation backward_node(const Case& given) {
  const int64_t nodes = given.number(1);
  const Tensor x = randn({4}).requires_grad_(), y = sum(chain(x, nodes));
  return {.unit = "ns", .call = [x, y] { y.backward({}, true); }, .per_call = count(nodes)};
}

// graph NODES: building and freeing it
Operation graph(const Case& given) {
  const int64_t nodes = given.number(1);
  return {.unit = "us", .call = [x = randn({4}).requires_grad_(), nodes] { keep(chain(x, nodes)); }};
}

}  // namespace bench
