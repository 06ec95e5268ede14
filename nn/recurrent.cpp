#include <loom/nn/recurrent.h>

#include <cmath>

#include <loom/autograd/ops.h>
#include <loom/nn/init.h>
#include <loom/nn/module_range.h>

namespace loom::nn {

namespace {

int64_t gates_of(RecurrentCell cell) { return cell == RecurrentCell::lstm ? 4 : cell == RecurrentCell::gru ? 3 : 1; }

}  // namespace

Recurrent::Recurrent(const char* name, RecurrentCell cell, int64_t input_size, int64_t hidden_size,
                     const RecurrentOptions& o)
    : name_(name), cell_(cell), input_size_(input_size), hidden_size_(hidden_size), options_(o) {
  check(hidden_size > 0 && o.num_layers > 0, name, ": hidden_size and num_layers must be positive, got ", hidden_size,
        " and ", o.num_layers);
  check(o.dropout >= 0 && o.dropout <= 1, name, ": dropout should be a number in [0, 1], got ", o.dropout);
  const int directions = o.bidirectional ? 2 : 1;
  for (int64_t layer = 0; layer < o.num_layers; ++layer)
    for (int direction = 0; direction < directions; ++direction) {
      const int64_t inputs = layer == 0 ? input_size : hidden_size * directions, rows = gates_of(cell) * hidden_size;
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

std::pair<Tensor, Recurrent::States> Recurrent::run_direction(const Tensor& x, const States& states, const Weights& w,
                                                              bool reverse) const {
  // Of all steps in one product. A GRU's biases enter in different places; elsewhere their sum does.
  const bool together = cell_ != RecurrentCell::gru && w.bias_ih.defined();
  const Tensor gates = linear(x, w.ih, together ? w.bias_ih + w.bias_hh : Tensor(w.bias_ih));
  const auto [output, c] = recurrent_steps(cell_, gates, w.hh, together ? Tensor() : Tensor(w.bias_hh), states[0],
                                           states.size() > 1 ? states[1] : Tensor(), reverse);
  States last{select(output, 0, reverse ? 0 : output.size(0) - 1)};
  if (c.defined()) last.push_back(c);
  return {output, last};
}

std::pair<Tensor, Recurrent::States> Recurrent::run(const Tensor& input, const States& initial) const {
  check((input.dim() == 2 || input.dim() == 3) && input.size(-1) == input_size_, name_,
        ": expects x of 3 dimensions, or of 2 without a batch, with ", input_size_, " features, got ", input.shape());
  const bool batched = input.dim() == 3;
  Tensor x = !batched ? unsqueeze(input, 1) : options_.batch_first ? transpose(input, 0, 1) : input;
  const int64_t steps = x.size(0), batch = x.size(1), directions = options_.bidirectional ? 2 : 1;
  check(steps > 0, name_, ": expects at least one step, got x of shape ", input.shape());
  const auto sets = static_cast<int64_t>(weights_.size());
  const Dims state_shape = batched ? Dims{sets, batch, hidden_size_} : Dims{sets, hidden_size_};
  std::vector<States> last(initial.size());
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
      auto [output, after] = run_direction(x, states, w, direction == 1);
      outputs.push_back(std::move(output));
      for (size_t i = 0; i < last.size(); ++i) last[i].push_back(std::move(after[i]));
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
    : Recurrent("RNN", o.nonlinearity == "relu" ? RecurrentCell::relu : RecurrentCell::tanh, input_size, hidden_size,
                o) {
  check(o.nonlinearity == "tanh" || o.nonlinearity == "relu", "RNN: nonlinearity is tanh or relu, got ",
        o.nonlinearity);
}

RecurrentOutput RNN::operator()(const Tensor& x, const Tensor& h_0) const {
  const ModuleRange range(*this);
  auto [output, states] = run(x, {h_0});
  return {output, states[0]};
}

GRU::GRU(int64_t input_size, int64_t hidden_size, const RecurrentOptions& o)
    : Recurrent("GRU", RecurrentCell::gru, input_size, hidden_size, o) {}

RecurrentOutput GRU::operator()(const Tensor& x, const Tensor& h_0) const {
  const ModuleRange range(*this);
  auto [output, states] = run(x, {h_0});
  return {output, states[0]};
}

LSTM::LSTM(int64_t input_size, int64_t hidden_size, const RecurrentOptions& o)
    : Recurrent("LSTM", RecurrentCell::lstm, input_size, hidden_size, o) {}

LstmOutput LSTM::operator()(const Tensor& x, const Tensor& h_0, const Tensor& c_0) const {
  const ModuleRange range(*this);
  check(h_0.defined() == c_0.defined(), "LSTM: both h_0 and c_0 are expected, or none");
  auto [output, states] = run(x, {h_0, c_0});
  return {output, states[0], states[1]};
}

}  // namespace loom::nn
