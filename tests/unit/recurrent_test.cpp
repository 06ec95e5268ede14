// SPDX-License-Identifier: Apache-2.0
// What golden_layers_test.cpp does not see of RNN, GRU and LSTM: names, shapes, splitting a sequence, messages.
#include <loom/autograd/engine.h>
#include <loom/autograd/ops.h>
#include <loom/nn/recurrent.h>

#include "tensor_test.h"

namespace {

using namespace loom;
using tensor_test::error_of;

bool close(const Tensor& a, const Tensor& b) { return allclose(a, b, 1e-5, 1e-6); }

}  // namespace

TEST_CASE("names are PyTorch's") {
  const nn::LSTM net(3, 4, {.num_layers = 2, .bidirectional = true});
  std::vector<std::string> names;
  for (const auto& [name, p] : nn::parameters(net)) names.push_back(name);
  CHECK(names == std::vector<std::string>{"weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0",
                                          "weight_ih_l0_reverse", "weight_hh_l0_reverse", "bias_ih_l0_reverse",
                                          "bias_hh_l0_reverse", "weight_ih_l1", "weight_hh_l1", "bias_ih_l1",
                                          "bias_hh_l1", "weight_ih_l1_reverse", "weight_hh_l1_reverse",
                                          "bias_ih_l1_reverse", "bias_hh_l1_reverse"});
  CHECK(nn::parameters(net)[8].tensor.shape() == Dims{16, 8});
  CHECK(nn::parameters(nn::GRU(3, 4, {.bias = false})).size() == 2);
}

TEST_CASE("shapes: batch first, directions, layers, no batch") {
  const nn::LSTM net(3, 4, {.num_layers = 2, .batch_first = true, .bidirectional = true});
  const auto [y, h, c] = net(randn({5, 7, 3}));
  CHECK(y.shape() == Dims{5, 7, 8});
  CHECK(h.shape() == Dims{4, 5, 4});
  CHECK(c.shape() == Dims{4, 5, 4});
  const auto [y1, h1] = nn::RNN(3, 4)(randn({7, 3}));
  CHECK(y1.shape() == Dims{7, 4});
  CHECK(h1.shape() == Dims{1, 4});
}

TEST_CASE("a sequence in two halves gives what it gives at once") {
  const Tensor x = randn({6, 2, 3}), front = narrow(x, 0, 0, 3), back = narrow(x, 0, 3, 3);
  const nn::GRU gru(3, 4, {.num_layers = 2});
  const auto whole = gru(x), first = gru(front), second = gru(back, first.h_n);
  CHECK(close(cat({first.output, second.output}), whole.output));
  CHECK(close(second.h_n, whole.h_n));
  const nn::LSTM lstm(3, 4, {.num_layers = 2});
  const auto all = lstm(x), a = lstm(front), b = lstm(back, a.h_n, a.c_n);
  CHECK(close(cat({a.output, b.output}), all.output));
  CHECK(close(b.c_n, all.c_n));
}

TEST_CASE("wide layers give what single steps in double give") {
  constexpr int64_t hidden = 96, steps = 4;
  for (const auto& [cell, gates] :
       {std::pair{RecurrentCell::tanh, 1}, {RecurrentCell::gru, 3}, {RecurrentCell::lstm, 4}})
    for (const int64_t rows : {3, 17})  // few are multiplied with the weights as they lie
      for (const bool reverse : {false, true})
        for (const bool bias : {false, true}) {
          const bool lstm = cell == RecurrentCell::lstm;
          const Tensor x = randn({steps, rows, gates * hidden}), w = randn({gates * hidden, hidden}) * 0.2;
          const Tensor b = bias ? randn({gates * hidden}) : Tensor(), h_0 = randn({rows, hidden});
          const Tensor c_0 = lstm ? randn({rows, hidden}) : Tensor();
          const Tensor y = recurrent_steps(cell, x, w, b, h_0, c_0, reverse).first;
          const auto wide = [](const Tensor& t) { return t.defined() ? t.to(DType::f64) : t; };
          Tensor h = wide(h_0), c = wide(c_0);
          for (int64_t step = 0; step < steps; ++step) {
            const int64_t t = reverse ? steps - 1 - step : step;
            const auto [next, after] = recurrent_steps(cell, narrow(wide(x), 0, t, 1), wide(w), wide(b), h, c, false);
            h = next[0];
            c = after;
            CHECK(allclose(wide(y[t]), h, 1e-5, 2e-6));
          }
        }
}

TEST_CASE("gradients of wide layers are those of single steps in double") {
  constexpr int64_t hidden = 128, steps = 3;
  for (const auto& [cell, gates] :
       {std::pair{RecurrentCell::tanh, 1}, {RecurrentCell::gru, 3}, {RecurrentCell::lstm, 4}})
    for (const int64_t rows : {3, 17})  // few are multiplied with the weights as they lie
      for (const bool reverse : {false, true})
        for (const bool bias : {false, true}) {
          const bool lstm = cell == RecurrentCell::lstm;
          std::vector<Tensor> values{randn({steps, rows, gates * hidden}), randn({gates * hidden, hidden}) * 0.1,
                                     randn({rows, hidden})};
          if (lstm) values.push_back(randn({rows, hidden}));
          if (bias) values.push_back(randn({gates * hidden}));
          const Tensor seed = randn({steps, rows, hidden});
          const auto gradients = [&, cell = cell](DType dtype, int64_t at_once) {
            std::vector<Tensor> x, outputs;
            for (const Tensor& v : values) x.push_back(v.to(dtype).clone().requires_grad_());
            Tensor h = x[2], c = lstm ? x[3] : Tensor(), total;
            for (int64_t step = 0; step < steps; step += at_once) {
              const int64_t t = reverse ? steps - at_once - step : step;
              const auto [y, after] =
                  recurrent_steps(cell, narrow(x[0], 0, t, at_once), x[1], bias ? x.back() : Tensor(), h, c, reverse);
              const Tensor loss = sum(y * narrow(seed, 0, t, at_once).to(dtype));
              total = total.defined() ? total + loss : loss;
              h = select(y, 0, reverse ? 0 : at_once - 1);
              c = after;
            }
            return grad(std::vector{total}, x);
          };
          const std::vector<Tensor> exact = gradients(f64, 1), whole = gradients(f32, steps);
          for (size_t i = 0; i < exact.size(); ++i) CHECK(allclose(whole[i].to(f64), exact[i], 1e-4, 2e-5));
        }
}

TEST_CASE("gradients of a graph that is kept are the same each time") {
  const Tensor x = randn({5, 7, 4 * 96}).requires_grad_(), w = (randn({4 * 96, 96}) * 0.2).requires_grad_();
  const Tensor state = randn({7, 96});  // wants no gradient
  const auto [y, c_n] = recurrent_steps(RecurrentCell::lstm, x, w, Tensor(), state, state, false);
  const std::vector<Tensor> total{sum(y * y) + sum(c_n)}, inputs{x, w};
  const auto first = grad(total, inputs, {}, {.retain_graph = true}), second = grad(total, inputs);
  for (size_t i = 0; i < inputs.size(); ++i) CHECK(equal(first[i], second[i]));
}

TEST_CASE("the gradient of an LSTM's step whose out gate is shut is finite") {
  for (const double out : {-80.0, -200.0}) {
    const Tensor h = zeros({4, 3});
    const Tensor x = cat({full({1, 4, 9}, 2.0), full({1, 4, 3}, out)}, -1).requires_grad_();
    const auto [y, c_n] = recurrent_steps(RecurrentCell::lstm, x, zeros({12, 3}), Tensor(), h, h, false);
    const Tensor dx = grad(sum(y) + sum(c_n), x);
    CHECK(isfinite(dx).all().item<bool>());
    CHECK(narrow(dx, 2, 9, 3).abs().max().item<float>() < 1e-30F);
  }
}

TEST_CASE("second gradients in 16 bits are near those in f32") {
  for (const auto& [cell, gates] :
       {std::pair{RecurrentCell::tanh, 1}, {RecurrentCell::gru, 3}, {RecurrentCell::lstm, 4}}) {
    const std::vector<Tensor> values{randn({3, 2, gates * 4}, bf16), randn({gates * 4, 4}, bf16),
                                     randn({gates * 4}, bf16), randn({2, 4}, bf16), randn({2, 4}, bf16)};
    const auto penalty = [&, cell = cell](DType dtype) {
      std::vector<Tensor> x;
      x.reserve(values.size());
      for (const Tensor& v : values) x.push_back(v.to(dtype).clone().requires_grad_());
      const bool lstm = cell == RecurrentCell::lstm;
      const auto [y, c_n] = recurrent_steps(cell, x[0], x[1], x[2], x[3], lstm ? x[4] : Tensor(), false);
      CHECK(y.dtype() == dtype);
      const Tensor total = sum(square(y.to(f32))) + (lstm ? sum(square(c_n.to(f32))) : Tensor(0.0));
      Tensor steepness;
      for (const Tensor& g : grad(std::vector{total}, std::vector{x[0], x[1], x[2], x[3]}, {}, {.create_graph = true}))
        steepness = steepness.defined() ? steepness + sum(square(g.to(f32))) : sum(square(g.to(f32)));
      const Tensor second = grad(steepness, x[1]);
      CHECK(second.dtype() == dtype);
      return second.to(f32);
    };
    const Tensor exact = penalty(f32);
    for (const DType dtype : {bf16, f16})
      CHECK(norm(penalty(dtype) - exact).item<double>() < 0.03 * norm(exact).item<double>());
  }
}

TEST_CASE("the last output is the last state; backwards it is the first") {
  const nn::RNN net(3, 4, {.bidirectional = true});
  const auto [y, h] = net(randn({5, 2, 3}));
  CHECK(close(narrow(y[4], 1, 0, 4), h[0]));
  CHECK(close(narrow(y[0], 1, 4, 4), h[1]));
}

TEST_CASE("dropout works between layers, in training only") {
  nn::GRU net(3, 4, {.num_layers = 2, .dropout = 0.5});
  const Tensor x = randn({5, 2, 3});
  CHECK(!close(net(x).output, net(x).output));
  nn::eval(net);
  CHECK(close(net(x).output, net(x).output));
}

TEST_CASE("they say what is wrong") {
  CHECK(error_of([] { nn::RNN(3, 4, {.nonlinearity = "gelu"}); }) == "RNN: nonlinearity is tanh or relu, got gelu");
  CHECK(error_of([] { nn::LSTM(3, 0); }) == "LSTM: hidden_size and num_layers must be positive, got 0 and 1");
  CHECK(error_of([] { nn::GRU(3, 4, {.dropout = 2}); }) == "GRU: dropout should be a number in [0, 1], got 2");
  CHECK(error_of([] {
          nn::GRU(3, 4)(ones({5, 2, 7}));
        }) == "GRU: expects x of 3 dimensions, or of 2 without a batch, with 3 features, got [5, 2, 7]");
  CHECK(error_of([] {
          nn::GRU(3, 4)(ones({5, 2, 3}), ones({1, 3, 4}));
        }) == "GRU: expects an initial state of shape [1, 2, 4], got [1, 3, 4]");
  CHECK(error_of([] {
          nn::LSTM(3, 4)(ones({5, 2, 3}), ones({1, 2, 4}));
        }) == "LSTM: both h_0 and c_0 are expected, or none");
}
