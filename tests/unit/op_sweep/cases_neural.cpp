// SPDX-License-Identifier: Apache-2.0
// Softmax, norms, dropout, attention.
#include <loom/tensor/context.h>

#include "case.h"

namespace loom::sweep {

namespace {

Tensor optional(In x, size_t i) { return i < x.size() ? x[i] : Tensor(); }

void add_softmax(Cases& c) {
  using Call = Tensor (*)(const Tensor&, int);
  for (const auto& [op, call] : {std::pair<const char*, Call>("softmax", &loom::softmax),
                                 std::pair<const char*, Call>("log_softmax", &loom::log_softmax),
                                 std::pair<const char*, Call>("softmin", &loom::softmin)}) {
    const auto along = [f = call](int dim) { return [f, dim](In x) { return f(x[0], dim); }; };
    c.add(op, "", {real({3, 5})}, along(1)).sum_of(5);
    c.add(op, "first", {real({4, 3})}, along(0)).sum_of(5);
    c.add(op, "middle", {real({2, 4, 2})}, along(-2)).sum_of(5);
    c.add(op, "one element", {real({3, 1})}, along(1));
    c.add(op, "scalar", {real({})}, along(0));
    c.add(op, "empty", {real({0, 3})}, along(1));
    c.add(op, "long", {real({2, 19}, -20, 20)}, along(-1)).sum_of(19).roundings(8);
  }
  c.add("softmax_grad", "", {real({3, 4}), real({3, 4})}, [](In x) { return softmax_grad(x[0], x[1], 1); }).sum_of(8);
  c.add("softmax_grad", "first", {real({3, 4}), real({3, 4})}, [](In x) {
     return softmax_grad(x[0], x[1], 0);
   }).sum_of(8);
  c.add("log_softmax_grad", "", {real({3, 4}), real({3, 4})}, [](In x) {
     return log_softmax_grad(x[0], x[1], -1);
   }).sum_of(8);
}

void add_row_norms(Cases& c) {
  const auto layer = [](const Dims& shape) {
    return [shape](In x) { return layer_norm(x[0], shape, optional(x, 1), optional(x, 2), 1e-3); };
  };
  const auto rms = [](const Dims& shape) {
    return [shape](In x) { return rms_norm(x[0], shape, optional(x, 1), 1e-3); };
  };
  const auto add = [&](const char* op, const char* what, std::vector<Input> inputs,
                       const std::function<Tensor(In)>& f) {
    c.add(op, what, std::move(inputs), f).sum_of(16).roundings(8);
  };
  add("layer_norm", "", {real({3, 5}), real({5}), real({5})}, layer({5}));
  add("layer_norm", "no parameters", {real({3, 5})}, layer({5}));
  add("layer_norm", "weight only", {real({2, 2, 4}), real({4})}, layer({4}));
  add("layer_norm", "two dimensions", {real({3, 2, 3}), real({2, 3}), real({2, 3})}, layer({2, 3}));
  add("layer_norm", "all dimensions", {real({2, 3}), real({2, 3}), real({2, 3})}, layer({2, 3}));
  add("layer_norm", "many rows", {real({35, 2}), real({2}), real({2})}, layer({2}));
  add("layer_norm", "no rows", {real({0, 4}), real({4}), real({4})}, layer({4}));
  add("rms_norm", "", {real({3, 5}), real({5})}, rms({5}));
  add("rms_norm", "no weight", {real({3, 5})}, rms({5}));
  add("rms_norm", "two dimensions", {real({3, 2, 3}), real({2, 3})}, rms({2, 3}));
  add("rms_norm", "small eps", {real({3, 5}), real({5})}, [](In x) { return rms_norm(x[0], {5}, x[1], 1e-7); });
  add("rms_norm", "no rows", {real({0, 4}), real({4})}, rms({4}));
  const auto group = [](int64_t n) {
    return [n](In x) { return group_norm(x[0], n, optional(x, 1), optional(x, 2), 1e-3); };
  };
  add("group_norm", "", {real({2, 4, 3}), real({4}), real({4})}, group(2));
  add("group_norm", "one group", {real({2, 3, 2, 2})}, group(1));
  add("group_norm", "a group per channel", {real({2, 2, 3}), real({2}), real({2})}, group(2));
}

void add_batch_norms(Cases& c) {
  const auto training = [](In x) { return batch_norm(x[0], {}, {}, optional(x, 1), optional(x, 2), true, 0.1, 1e-3); };
  const auto evaluating = [](In x) {
    return batch_norm(x[0], x[1], x[2], optional(x, 3), optional(x, 4), false, 0.1, 1e-3);
  };
  const auto add = [&](const char* what, std::vector<Input> inputs, const std::function<Tensor(In)>& f) {
    c.add("batch_norm", what, std::move(inputs), f).sum_of(36).roundings(8);
  };
  const Input mean = constant(real({3}, -0.5, 0.5)), var = constant(real({3}, 0.5, 2));
  add("training", {real({4, 3}), real({3}), real({3})}, training);
  add("training, planes", {real({2, 3, 2, 3}), real({3}), real({3})}, training);
  add("training, long planes", {real({2, 2, 18}), real({2}), real({2})}, training);
  add("training, no parameters", {real({4, 3, 2})}, training);
  add("evaluation", {real({4, 3}), mean, var, real({3}), real({3})}, evaluating);
  add("evaluation, planes", {real({2, 3, 2, 2}), mean, var, real({3}), real({3})}, evaluating);
  add("evaluation, no parameters", {real({2, 3, 4}), mean, var}, evaluating);
  add("empty", {real({0, 3}), mean, var, real({3}), real({3})}, evaluating);
}

// Both results of what gives two, so that both gradients flow.
void add_joined_norms(Cases& c) {
  const auto both = [](const std::pair<Tensor, Tensor>& sum_and_norm) {
    return sum_and_norm.first * 0.5 + sum_and_norm.second;
  };
  const auto layer = [=](const Dims& shape) {
    return [=](In x) { return both(add_layer_norm(x[0], x[1], shape, optional(x, 2), optional(x, 3), 1e-3)); };
  };
  const auto rms = [=](const Dims& shape) {
    return [=](In x) { return both(add_rms_norm(x[0], x[1], shape, optional(x, 2), 1e-3)); };
  };
  const auto add = [&](const char* op, const char* what, std::vector<Input> inputs,
                       const std::function<Tensor(In)>& f) {
    c.add(op, what, std::move(inputs), f).sum_of(16).roundings(8);
  };
  add("add_layer_norm", "", {real({3, 5}), real({3, 5}), real({5}), real({5})}, layer({5}));
  add("add_layer_norm", "no parameters", {real({2, 3, 4}), real({2, 3, 4})}, layer({4}));
  add("add_layer_norm", "two dimensions", {real({3, 2, 4}), real({3, 2, 4}), real({2, 4}), real({2, 4})},
      layer({2, 4}));
  add("add_layer_norm", "the norm alone", {real({3, 8}), real({3, 8}), real({8}), real({8})},
      [](In x) { return add_layer_norm(x[0], x[1], {8}, x[2], x[3], 1e-3).second; });
  add("add_layer_norm", "the sum alone", {real({3, 8}), real({3, 8}), real({8})},
      [](In x) { return add_layer_norm(x[0], x[1], {8}, x[2], {}, 1e-3).first; });
  add("add_layer_norm", "no rows", {real({0, 4}), real({0, 4}), real({4}), real({4})}, layer({4}));
  add("add_rms_norm", "", {real({3, 5}), real({3, 5}), real({5})}, rms({5}));
  add("add_rms_norm", "no weight", {real({3, 8}), real({3, 8})}, rms({8}));
  add("add_rms_norm", "no rows", {real({0, 4}), real({0, 4}), real({4})}, rms({4}));
}

void add_gelu_mlps(Cases& c) {
  const auto mlp = [](In x) { return gelu_mlp(x[0], x[1], x[2], x[3], x[4]); };
  const auto add = [&](const char* what, std::vector<Input> inputs, const std::function<Tensor(In)>& f) {
    c.add("gelu_mlp", what, std::move(inputs), f).sum_of(64).roundings(16);
  };
  add("", {real({2, 3, 4}), real({5, 4}), real({5}), real({2, 5}), real({2})}, mlp);
  add("whole vectors", {real({5, 8}, -1, 1), real({16, 8}, -1, 1), real({16}), real({8, 16}, -1, 1), real({8})}, mlp);
  add("no biases", {real({3, 4}), real({8, 4}), real({4, 8})}, [](In x) { return gelu_mlp(x[0], x[1], {}, x[2], {}); });
  add("a vector", {real({4}), real({8, 4}), real({8}), real({3, 8}), real({3})}, mlp);
  add("no rows", {real({0, 4}), real({8, 4}), real({8}), real({4, 8}), real({4})}, mlp);
}

// What is added keeps values away from 0, where the ReLU bends.
void add_batch_norm_relus(Cases& c) {
  const auto far = [](const Dims& shape) {
    return exactly(
        where(arange(shape.numel()).reshape(shape) % 3.0 == 0.0, full(shape, -5.0, f64), full(shape, 5.0, f64)));
  };
  const auto training = [](In x) {
    return batch_norm_relu(x[0], x[1], {}, {}, optional(x, 2), optional(x, 3), true, 0.1, 1e-3);
  };
  const auto add = [&](const char* what, std::vector<Input> inputs, const std::function<Tensor(In)>& f) {
    c.add("batch_norm_relu", what, std::move(inputs), f).sum_of(36).roundings(8);
  };
  const Input mean = constant(real({3}, -0.5, 0.5)), var = constant(real({3}, 0.5, 2));
  add("training", {real({4, 3}), far({4, 3}), real({3}, -1, 1), real({3}, -1, 1)}, training);
  add("training, planes", {real({2, 3, 2, 4}), far({2, 3, 2, 4}), real({3}, -1, 1), real({3}, -1, 1)}, training);
  add("training, no parameters", {real({4, 3, 2}), far({4, 3, 2})}, training);
  add("evaluation", {real({4, 3}), far({4, 3}), mean, var, real({3}, -1, 1), real({3}, -1, 1)},
      [](In x) { return batch_norm_relu(x[0], x[1], x[2], x[3], x[4], x[5], false, 0.1, 1e-3); });
  add("empty", {real({0, 3}), real({0, 3}), mean, var, real({3})},
      [](In x) { return batch_norm_relu(x[0], x[1], x[2], x[3], x[4], {}, false, 0.1, 1e-3); });
  c.add("batch_norm_relu", "nothing added", {real({2, 3, 2, 3}), real({3}), real({3})},
        [](In x) { return batch_norm_relu(x[0], {}, {}, {}, x[1], x[2], true, 0.1, 1e-3); })
      .sum_of(36)
      .only_f64("rounding decides on which side of 0 a value lies");
}

void add_dropouts(Cases& c) {
  const auto drop = [](double p, bool training) {
    return [p, training](In x) {
      manual_seed(5);  // the same mask for every difference
      return dropout(x[0], p, training);
    };
  };
  c.add("dropout", "", {real({4, 6})}, drop(0.4, true)).only_f64("each dtype draws its own mask");
  c.add("dropout", "everything", {real({4, 3})}, drop(1, true));
  c.add("dropout", "nothing", {real({4, 3})}, [](In x) { return dropout(x[0], 0) * 1.0; });
  c.add("dropout", "evaluation", {real({4, 3})}, [](In x) { return dropout(x[0], 0.5, false) * 1.0; });
}

void add_attention(Cases& c) {
  const auto add = [&](const char* what, std::vector<Input> more, const std::function<Tensor(In)>& f) -> Case& {
    std::vector<Input> inputs{real({2, 3, 4}), real({2, 3, 4}), real({2, 3, 2})};
    inputs.insert(inputs.end(), more.begin(), more.end());
    return c.add("scaled_dot_product_attention", what, inputs, f).sum_of(16).roundings(8);
  };
  const auto attend = [](In x, const AttentionOptions& o) { return scaled_dot_product_attention(x[0], x[1], x[2], o); };
  add("", {}, [=](In x) { return attend(x, {}); });
  add("causal", {}, [=](In x) { return attend(x, {.is_causal = true}); });
  add("scale", {}, [=](In x) { return attend(x, {.scale = 0.3}); });
  add("mask", {mask({3, 3})}, [=](In x) { return attend(x, {.mask = x[3]}); });
  add("nothing to attend to", {}, [=](In x) { return attend(x, {.mask = zeros({3, 3}, {boolean, x[0].device()})}); });
  add("added mask", {real({1, 3, 3})}, [=](In x) { return attend(x, {.mask = x[3]}); });
  add("dropout", {}, [=](In x) {
    manual_seed(5);
    return attend(x, {.dropout = 0.3});
  }).only_f64("each dtype draws its own mask");
  c.add("scaled_dot_product_attention", "heads that share keys",
        {real({1, 4, 3, 4}), real({1, 2, 3, 4}), real({1, 2, 3, 2})},
        [=](In x) { return attend(x, {.enable_gqa = true}); })
      .sum_of(16)
      .roundings(8);
  c.add("scaled_dot_product_attention", "other lengths", {real({2, 4}), real({3, 4}), real({3, 5})},
        [=](In x) { return attend(x, {.is_causal = true}); })
      .sum_of(16)
      .roundings(8);
}

void add_recurrent(Cases& c) {
  // Both results, so that both gradients flow.
  const auto steps = [](RecurrentCell cell, bool reverse) {
    return [=](In x) {
      const bool lstm = cell == RecurrentCell::lstm;
      const auto [y, c_n] = recurrent_steps(cell, x[0], x[1], x[2], x[3], lstm ? x[4] : Tensor(), reverse);
      return lstm ? cat({y, unsqueeze(c_n, 0)}, 0) : y;
    };
  };
  for (const bool reverse : {false, true}) {
    const auto add = [&](const char* what, RecurrentCell cell, int64_t gates, const Dims& sizes) -> Case& {
      const int64_t steps_of = sizes[0], rows = sizes[1], hidden = sizes[2];
      std::vector<Input> inputs{real({steps_of, rows, gates * hidden}), real({gates * hidden, hidden}, -1, 1),
                                real({gates * hidden}), real({rows, hidden})};
      if (cell == RecurrentCell::lstm) inputs.push_back(real({rows, hidden}));
      return c.add("recurrent_steps", str(what, reverse ? " reverse" : ""), inputs, steps(cell, reverse))
          .sum_of(static_cast<double>(steps_of * hidden));
    };
    add("tanh", RecurrentCell::tanh, 1, {3, 2, 3});
    add("relu", RecurrentCell::relu, 1, {3, 2, 2});
    add("gru", RecurrentCell::gru, 3, {3, 2, 2});
    add("lstm", RecurrentCell::lstm, 4, {3, 2, 2});
    add("one step", RecurrentCell::lstm, 4, {1, 3, 2});
    add("gru, many rows", RecurrentCell::gru, 3, {5, 33, 17}).large();
    add("lstm, many rows", RecurrentCell::lstm, 4, {5, 33, 17}).large();
  }
}

}  // namespace

void add_neural_cases(Cases& cases) {
  add_softmax(cases);
  add_row_norms(cases);
  add_batch_norms(cases);
  add_joined_norms(cases);
  add_gelu_mlps(cases);
  add_batch_norm_relus(cases);
  add_dropouts(cases);
  add_attention(cases);
  add_recurrent(cases);
}

}  // namespace loom::sweep
