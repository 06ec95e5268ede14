#include <loom/accelerators/cuda/attention_graph.h>

#include <limits>

namespace loom::cuda {

namespace {

struct Builder {
  const AttentionCall& call;
  Graph graph;
  Dims scores, rows;
  int seed = -1, offset = -1;

  explicit Builder(const AttentionCall& c)
      : call(c), scores{c.batch, c.heads, c.queries, c.keys}, rows{c.batch, c.heads, c.queries, 1} {
    graph.keep = c.keep;
  }

  int of_queries(int64_t width, const Dims& strides) {
    return graph.memory(call.dtype, {call.batch, call.heads, call.queries, width}, strides);
  }
  int of_keys(int64_t width, const Dims& strides) {
    return graph.memory(call.dtype, {call.batch, call.key_heads, call.keys, width}, strides);
  }
  // The same memory as one of [.., width, length].
  int of_keys_turned(int64_t width, const Dims& strides) {
    return graph.memory(call.dtype, {call.batch, call.key_heads, width, call.keys},
                        {strides[0], strides[1], strides[3], strides[2]});
  }
  int row_values() { return graph.memory(DType::f32, rows, row_major_strides(rows)); }
  // The mask, or -1; the numbers that dropout draws from.
  int mask() { return call.mask.empty() ? -1 : graph.memory(call.mask_type, call.mask, call.mask_strides); }
  void take_words() {
    if (call.keep == 1) return;
    const Dims one = Dims::filled(4, 1);
    seed = graph.memory(DType::i64, one, one);
    offset = graph.memory(DType::i64, one, one);
  }
  int number(float value) { return graph.number(value, 4); }

  int product(const Dims& shape, int a, int b) { return graph.then(GraphOp::matmul, DType::f32, shape, a, b); }
  int of(GraphOp op, const Dims& shape, int a, int b = -1) { return graph.then(op, DType::f32, shape, a, b); }
  void to(GraphOp op, int y, int a, int b = -1) { graph.nodes.push_back({op, y, a, b}); }
  int narrow(GraphOp op, const Dims& shape, int a, int b = -1) { return graph.then(op, call.dtype, shape, a, b); }

  int plus(int x, int added) { return added < 0 ? x : of(GraphOp::add, scores, x, added); }
  // Keys after the query are hidden.
  int causal(int x) {
    if (!call.causal) return x;
    const int row = graph.then(GraphOp::position, DType::i32, scores, x, -1, -1, 2);
    const int column = graph.then(GraphOp::position, DType::i32, scores, x, -1, -1, 3);
    const int seen = graph.then(GraphOp::at_least, DType::boolean, scores, row, column);
    const int hidden = number(-std::numeric_limits<float>::infinity());
    return graph.then(GraphOp::select, DType::f32, scores, x, hidden, seen);
  }
  // 1 for what is kept, 0 for what is dropped; -1: all is kept.
  int kept() { return call.keep == 1 ? -1 : of(GraphOp::random, scores, seed, offset); }
  int times(int x, int factor) { return factor < 0 ? x : of(GraphOp::multiply, scores, x, factor); }

  // x [.., T, S], seen as [.., S, T].
  int transposed(int x) {
    const Dims shape{call.batch, call.heads, call.keys, call.queries};
    const int y = graph.then(GraphOp::reshape, call.dtype, shape, x);
    const int64_t matrix = call.queries * call.keys;
    graph.tensors[static_cast<size_t>(y)].strides = {call.heads * matrix, matrix, 1, call.keys};
    return y;
  }
  // y [batch, key_heads, keys, width] = a b, heads that share a key summed.
  void product_of_keys(int y, int64_t width, int a, int b) {
    if (call.key_heads == call.heads) return to(GraphOp::matmul, y, a, b);
    to(GraphOp::sum, y, narrow(GraphOp::matmul, {call.batch, call.heads, call.keys, width}, a, b));
  }
};

}  // namespace

Graph attention_graph(const AttentionCall& c) {
  Builder g(c);
  const int q = g.of_queries(c.width, c.q), k = g.of_keys_turned(c.width, c.k), v = g.of_keys(c.columns, c.v);
  const int y = g.of_queries(c.columns, c.y), lse = g.row_values(), mask = g.mask();
  g.take_words();
  const int products = g.of(GraphOp::multiply, g.scores, g.product(g.scores, q, k), g.number(c.scale));
  const int scores = g.causal(g.plus(products, mask));
  const int top = g.of(GraphOp::largest, g.rows, scores);
  const int weights = g.of(GraphOp::exponential, g.scores, g.of(GraphOp::subtract, g.scores, scores, top));
  const int sum = g.of(GraphOp::sum, g.rows, weights);
  g.to(GraphOp::add, lse, top, g.of(GraphOp::logarithm, g.rows, sum));
  if (c.keep == 1) {
    g.to(GraphOp::matmul, y, g.narrow(GraphOp::divide, g.scores, weights, sum), v);
  } else {
    const int left = g.times(g.of(GraphOp::divide, g.scores, weights, sum), g.kept());
    const int scale = g.number(static_cast<float>(1 / c.keep));
    g.to(GraphOp::matmul, y, g.narrow(GraphOp::multiply, g.scores, left, scale), v);
  }
  return std::move(g.graph);
}

Graph attention_grad_graph(const AttentionCall& c) {
  Builder g(c);
  const int q = g.of_queries(c.width, c.q), k = g.of_keys_turned(c.width, c.k), v = g.of_keys_turned(c.columns, c.v);
  const int y = g.of_queries(c.columns, c.y), lse = g.row_values(), dy = g.of_queries(c.columns, c.dy);
  const int dq = g.of_queries(c.width, c.dq), dk = g.of_keys(c.width, c.dk), dv = g.of_keys(c.columns, c.dv);
  const int mask = g.mask();
  g.take_words();
  const int along = g.row_values(), scale = g.number(c.scale), keep = g.number(static_cast<float>(c.keep));
  const int kept = g.kept(), grown = c.keep == 1 ? -1 : g.number(static_cast<float>(1 / c.keep));

  // along = sum(dy * y) * keep: what the normalisation gives back, before it grows by 1 / keep.
  const int products = g.of(GraphOp::multiply, {c.batch, c.heads, c.queries, c.columns}, dy, y);
  g.to(GraphOp::multiply, along, g.of(GraphOp::sum, g.rows, products), keep);

  const int scores = g.plus(g.of(GraphOp::multiply, g.scores, g.product(g.scores, q, k), scale), mask);
  const int weights = g.of(GraphOp::exponential, g.scores, g.causal(g.of(GraphOp::subtract, g.scores, scores, lse)));
  g.product_of_keys(dv, c.columns, g.transposed(g.times(g.times(weights, kept), grown)), dy);

  const int rest = g.of(GraphOp::subtract, g.scores, g.times(g.product(g.scores, dy, v), kept), along);
  const int dproducts = g.times(g.of(GraphOp::multiply, g.scores, rest, weights), grown);
  const int dscores = g.of(GraphOp::multiply, g.scores, dproducts, scale);
  g.product_of_keys(dk, c.width, g.transposed(dscores), q);

  const int rows_of_k = g.narrow(GraphOp::reshape, {c.batch, c.key_heads, c.keys, c.width}, k);
  g.graph.tensors[static_cast<size_t>(rows_of_k)].strides = c.k;
  if (!c.any_order) {
    g.to(GraphOp::matmul, dq, dscores, rows_of_k);
    return std::move(g.graph);
  }
  const Dims shape{c.batch, c.heads, c.queries, c.width};
  const int sum = g.graph.memory(DType::f32, shape, row_major_strides(shape));
  g.to(GraphOp::matmul, sum, dscores, rows_of_k);
  g.to(GraphOp::identity, dq, sum);
  return std::move(g.graph);
}

}  // namespace loom::cuda
