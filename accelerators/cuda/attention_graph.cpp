#include <loom/accelerators/cuda/attention_graph.h>

#include <limits>

namespace loom::cuda {

namespace {

struct Builder {
  const AttentionCall& call;
  Graph graph;
  Dims scores, rows;

  explicit Builder(const AttentionCall& c)
      : call(c), scores{c.batch, c.heads, c.queries, c.keys}, rows{c.batch, c.heads, c.queries, 1} {}

  int matrix(int64_t length, int64_t width, const Dims& strides) {
    return graph.memory(call.dtype, {call.batch, call.heads, length, width}, strides);
  }
  // The same memory as one of [.., width, length].
  int turned(int64_t length, int64_t width, const Dims& strides) {
    return graph.memory(call.dtype, {call.batch, call.heads, width, length},
                        {strides[0], strides[1], strides[3], strides[2]});
  }
  int row_values() { return graph.memory(DType::f32, rows, row_major_strides(rows)); }
  int number(float value) { return graph.number(value, 4); }

  int product(const Dims& shape, int a, int b) { return graph.then(GraphOp::matmul, DType::f32, shape, a, b); }
  int of(GraphOp op, const Dims& shape, int a, int b = -1) { return graph.then(op, DType::f32, shape, a, b); }

  // Keys after the query are hidden.
  int causal(int x) {
    if (!call.causal) return x;
    const int row = graph.then(GraphOp::position, DType::i32, scores, x, -1, -1, 2);
    const int column = graph.then(GraphOp::position, DType::i32, scores, x, -1, -1, 3);
    const int seen = graph.then(GraphOp::at_least, DType::boolean, scores, row, column);
    const int hidden = number(-std::numeric_limits<float>::infinity());
    return graph.then(GraphOp::select, DType::f32, scores, x, hidden, seen);
  }
  int narrow(GraphOp op, const Dims& shape, int a, int b = -1) { return graph.then(op, call.dtype, shape, a, b); }

  // x [.., T, S], seen as [.., S, T].
  int transposed(int x) {
    const Dims shape{call.batch, call.heads, call.keys, call.queries};
    const int y = graph.then(GraphOp::reshape, call.dtype, shape, x);
    const int64_t matrix = call.queries * call.keys;
    graph.tensors[static_cast<size_t>(y)].strides = {call.heads * matrix, matrix, 1, call.keys};
    return y;
  }
};

}  // namespace

Graph attention_graph(const AttentionCall& c) {
  Builder g(c);
  const int q = g.matrix(c.queries, c.width, c.q), k = g.turned(c.keys, c.width, c.k);
  const int v = g.matrix(c.keys, c.columns, c.v), y = g.matrix(c.queries, c.columns, c.y), lse = g.row_values();
  const int scores = g.causal(g.of(GraphOp::multiply, g.scores, g.product(g.scores, q, k), g.number(c.scale)));
  const int top = g.of(GraphOp::largest, g.rows, scores);
  const int weights = g.of(GraphOp::exponential, g.scores, g.of(GraphOp::subtract, g.scores, scores, top));
  const int sum = g.of(GraphOp::sum, g.rows, weights);
  g.graph.nodes.push_back({GraphOp::add, lse, top, g.of(GraphOp::logarithm, g.rows, sum)});
  g.graph.nodes.push_back({GraphOp::matmul, y, g.narrow(GraphOp::divide, g.scores, weights, sum), v});
  return std::move(g.graph);
}

Graph attention_grad_graph(const AttentionCall& c) {
  Builder g(c);
  const int q = g.matrix(c.queries, c.width, c.q), k = g.turned(c.keys, c.width, c.k);
  const int v = g.turned(c.keys, c.columns, c.v), y = g.matrix(c.queries, c.columns, c.y), lse = g.row_values();
  const int dy = g.matrix(c.queries, c.columns, c.dy), dq = g.matrix(c.queries, c.width, c.dq);
  const int dk = g.matrix(c.keys, c.width, c.dk), dv = g.matrix(c.keys, c.columns, c.dv), along = g.row_values();
  const int scale = g.number(c.scale), one = g.number(1);

  // along = sum(dy * y): what the normalisation gives back.
  const int products = g.of(GraphOp::multiply, {c.batch, c.heads, c.queries, c.columns}, dy, y);
  g.graph.nodes.push_back({GraphOp::multiply, along, g.of(GraphOp::sum, g.rows, products), one});

  const int scores = g.of(GraphOp::multiply, g.scores, g.product(g.scores, q, k), scale);
  const int weights = g.of(GraphOp::exponential, g.scores, g.causal(g.of(GraphOp::subtract, g.scores, scores, lse)));
  g.graph.nodes.push_back({GraphOp::matmul, dv, g.transposed(weights), dy});

  const int rest = g.of(GraphOp::subtract, g.scores, g.product(g.scores, dy, v), along);
  const int dscores = g.of(GraphOp::multiply, g.scores, g.of(GraphOp::multiply, g.scores, rest, weights), scale);
  g.graph.nodes.push_back({GraphOp::matmul, dk, g.transposed(dscores), q});

  const int rows_of_k = g.narrow(GraphOp::reshape, {c.batch, c.heads, c.keys, c.width}, k);
  g.graph.tensors[static_cast<size_t>(rows_of_k)].strides = c.k;
  if (!c.any_order) {
    g.graph.nodes.push_back({GraphOp::matmul, dq, dscores, rows_of_k});
    return std::move(g.graph);
  }
  const Dims shape{c.batch, c.heads, c.queries, c.width};
  const int sum = g.graph.memory(DType::f32, shape, row_major_strides(shape));
  g.graph.nodes.push_back({GraphOp::matmul, sum, dscores, rows_of_k});
  g.graph.nodes.push_back({GraphOp::identity, dq, sum});
  return std::move(g.graph);
}

}  // namespace loom::cuda
