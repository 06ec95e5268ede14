#include <loom/nn/recurrent.h>

#include <cmath>

#include <loom/autograd/ops.h>
#include <loom/nn/init.h>

namespace loom::nn {

Recurrent::Recurrent(const char* name, int64_t gates, int64_t input_size, int64_t hidden_size,
                     const RecurrentOptions& o)
    : name_(name), input_size_(input_size), hidden_size_(hidden_size), options_(o) {
  check(hidden_size > 0 && o.num_layers > 0, name, ": hidden_size and num_layers must be positive, got ", hidden_size,
        " and ", o.num_layers);
  check(o.dropout >= 0 && o.dropout <= 1, name, ": dropout should be a number in [0, 1], got ", o.dropout);
  const int directions = o.bidirectional ? 2 : 1;
  for (int64_t layer = 0; layer < o.num_layers; ++layer)
    for (int direction = 0; direction < directions; ++direction) {
      const int64_t inputs = layer == 0 ? input_size : hidden_size * directions, rows = gates * hidden_size;
      Weights w{str("_l", layer, direction == 1 ? "_reverse" : ""),
                uninitialized({rows, inputs}, o),
                uninitialized({rows, hidden_size}, o),
                {},
                {}};
      if (o.bias) {
        w.bias_ih = uninitialized({rows}, o);
        w.bias_hh = uninitialized({rows}, o);
      }
      weights_.push_back(std::move(w));
    }
  if (!context().skip_init) reset_parameters();
}

void Recurrent::reset_parameters() const {
  const double bound = 1 / std::sqrt(static_cast<double>(hidden_size_));
  for (const Weights& w : weights_)
    for (const Parameter* p : {&w.ih, &w.hh, &w.bias_ih, &w.bias_hh})
      if (p->defined()) init::uniform_(*p, -bound, bound);
}

std::vector<Tensor> Recurrent::run_direction(const std::vector<Tensor>& gates, bool reverse, States& states,
                                             const Weights& weights, const Cell& cell) const {
  std::vector<Tensor> outputs(gates.size());
  for (size_t i = 0; i < gates.size(); ++i) {
    const size_t t = reverse ? gates.size() - 1 - i : i;
    states = cell(gates[t], states, weights);
    outputs[t] = states[0];
  }
  return outputs;
}

std::pair<Tensor, Recurrent::States> Recurrent::run(const Tensor& input, const States& initial, size_t count,
                                                    const Cell& cell) const {
  check((input.dim() == 2 || input.dim() == 3) && input.size(-1) == input_size_, name_,
        ": expects x of 3 dimensions, or of 2 without a batch, with ", input_size_, " features, got ", input.shape());
  const bool batched = input.dim() == 3;
  Tensor x = !batched ? unsqueeze(input, 1) : options_.batch_first ? transpose(input, 0, 1) : input;
  const int64_t steps = x.size(0), batch = x.size(1), directions = options_.bidirectional ? 2 : 1;
  check(steps > 0, name_, ": expects at least one step, got x of shape ", input.shape());
  const auto sets = static_cast<int64_t>(weights_.size());
  const Dims state_shape = batched ? Dims{sets, batch, hidden_size_} : Dims{sets, hidden_size_};
  std::vector<States> last(count);
  for (size_t set = 0; set < weights_.size();) {
    std::vector<Tensor> outputs;
    for (int64_t direction = 0; direction < directions; ++direction, ++set) {
      const Weights& w = weights_[set];
      States states;
      for (const Tensor& given : initial) {
        check(!given.defined() || given.shape() == state_shape, name_, ": expects an initial state of shape ",
              state_shape, ", got ", given.defined() ? given.shape() : Dims{});
        states.push_back(given.defined() ? reshape(select(given, 0, static_cast<int64_t>(set)), {batch, hidden_size_})
                                         : zeros({batch, hidden_size_}, {x.dtype(), x.device()}));
      }
      const std::vector<Tensor> gates = unbind(linear(x, w.ih, w.bias_ih), 0);  // of all steps in one product
      outputs.push_back(stack(run_direction(gates, direction == 1, states, w, cell), 0));
      for (size_t i = 0; i < count; ++i) last[i].push_back(states[i]);
    }
    x = directions == 1 ? outputs[0] : cat(outputs, 2);
    if (set < weights_.size()) x = dropout(x, options_.dropout, training_);
  }
  States final_states;
  for (const States& layers : last) {
    const Tensor all_layers = stack(layers, 0);
    final_states.push_back(batched ? all_layers : squeeze(all_layers, 1));
  }
  return {!batched ? squeeze(x, 1) : options_.batch_first ? transpose(x, 0, 1) : x, final_states};
}

RNN::RNN(int64_t input_size, int64_t hidden_size, const RecurrentOptions& o)
    : Recurrent("RNN", 1, input_size, hidden_size, o) {
  check(o.nonlinearity == "tanh" || o.nonlinearity == "relu", "RNN: nonlinearity is tanh or relu, got ",
        o.nonlinearity);
}

RecurrentOutput RNN::operator()(const Tensor& x, const Tensor& h_0) const {
  const bool with_tanh = options().nonlinearity == "tanh";
  auto [output, states] = run(x, {h_0}, 1, [&](const Tensor& gates, const States& s, const Weights& w) {
    const Tensor sum = gates + linear(s[0], w.hh, w.bias_hh);
    return States{with_tanh ? tanh(sum) : relu(sum)};
  });
  return {output, states[0]};
}

GRU::GRU(int64_t input_size, int64_t hidden_size, const RecurrentOptions& o)
    : Recurrent("GRU", 3, input_size, hidden_size, o) {}

RecurrentOutput GRU::operator()(const Tensor& x, const Tensor& h_0) const {
  auto [output, states] = run(x, {h_0}, 1, [](const Tensor& gates, const States& s, const Weights& w) {
    const std::vector<Tensor> a = chunk(gates, 3, -1), b = chunk(linear(s[0], w.hh, w.bias_hh), 3, -1);
    const Tensor reset = sigmoid(a[0] + b[0]), update = sigmoid(a[1] + b[1]);
    const Tensor candidate = tanh(a[2] + reset * b[2]);
    return States{candidate + update * (s[0] - candidate)};
  });
  return {output, states[0]};
}

LSTM::LSTM(int64_t input_size, int64_t hidden_size, const RecurrentOptions& o)
    : Recurrent("LSTM", 4, input_size, hidden_size, o) {}

LstmOutput LSTM::operator()(const Tensor& x, const Tensor& h_0, const Tensor& c_0) const {
  check(h_0.defined() == c_0.defined(), "LSTM: both h_0 and c_0 are expected, or none");
  auto [output, states] = run(x, {h_0, c_0}, 2, [](const Tensor& gates, const States& s, const Weights& w) {
    const std::vector<Tensor> parts = chunk(gates + linear(s[0], w.hh, w.bias_hh), 4, -1);
    const Tensor in = sigmoid(parts[0]), forget = sigmoid(parts[1]), out = sigmoid(parts[3]);
    const Tensor c = forget * s[1] + in * tanh(parts[2]);
    return States{out * tanh(c), c};
  });
  return {output, states[0], states[1]};
}

}  // namespace loom::nn
