// Recurrent networks: Elman's RNN, LSTM (Hochreiter, Schmidhuber 1997), GRU (Cho et al. 2014).
#pragma once

#include <string>
#include <vector>

#include <loom/autograd/ops/recurrent.h>
#include <loom/nn/module.h>

namespace loom::nn {

struct RecurrentOptions {
  int64_t num_layers = 1;
  std::string nonlinearity = "tanh";  // or "relu"; RNN only
  bool bias = true;
  bool batch_first = false;
  double dropout = 0;  // between layers, in training
  bool bidirectional = false;
  std::optional<DType> dtype = {};
  std::optional<Device> device = {};
};

// output [T, N, directions * hidden], the last layer's; h_n [layers * directions, N, hidden], after the last step.
struct RecurrentOutput {
  Tensor output, h_n;
};
struct LstmOutput {
  Tensor output, h_n, c_n;
};

// What the three have in common: the weights of each layer and direction, and the order of computation.
class Recurrent {
 public:
  const RecurrentOptions& options() const { return options_; }
  void reset_parameters() const;

  // weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, weight_ih_l0_reverse, ...
  template <class Visitor>
  void members(Visitor&& visitor) {
    list(*this, visitor);
  }
  template <class Visitor>
  void members(Visitor&& visitor) const {
    list(*this, visitor);
  }

 protected:
  struct Weights {
    std::string suffix;  // "_l0", "_l0_reverse"
    Parameter ih, hh, bias_ih, bias_hh;
  };
  using States = std::vector<Tensor>;  // h, and c of an LSTM: [N, hidden]

  Recurrent(const char* name, RecurrentCell cell, int64_t input_size, int64_t hidden_size,
            const RecurrentOptions& options);
  // The output, and h_n (and c_n).
  std::pair<Tensor, States> run(const Tensor& x, const States& initial) const;

  Training training_;

 private:
  template <class Self, class Visitor>
  static void list(Self& self, Visitor&& visitor) {
    for (auto& w : self.weights_) {
      visitor("weight_ih" + w.suffix, w.ih);
      visitor("weight_hh" + w.suffix, w.hh);
      visitor("bias_ih" + w.suffix, w.bias_ih);
      visitor("bias_hh" + w.suffix, w.bias_hh);
    }
    visitor("training", self.training_);
  }
  // The states after each step of x, and at the end.
  std::pair<Tensor, States> run_direction(const Tensor& x, const States& states, const Weights& weights,
                                          bool reverse) const;

  const char* name_;
  RecurrentCell cell_;
  int64_t input_size_, hidden_size_;
  RecurrentOptions options_;
  std::vector<Weights> weights_;
};

// x [T, N, input_size] ([N, T, ..] with batch_first, [T, input_size] without a batch); initial states as h_n, zeros
// where undefined.
struct RNN : Recurrent {
  RNN(int64_t input_size, int64_t hidden_size, const RecurrentOptions& options = {});
  RecurrentOutput operator()(const Tensor& x, const Tensor& h_0 = {}) const;
};

struct GRU : Recurrent {
  GRU(int64_t input_size, int64_t hidden_size, const RecurrentOptions& options = {});
  RecurrentOutput operator()(const Tensor& x, const Tensor& h_0 = {}) const;
};

struct LSTM : Recurrent {
  LSTM(int64_t input_size, int64_t hidden_size, const RecurrentOptions& options = {});
  LstmOutput operator()(const Tensor& x, const Tensor& h_0 = {}, const Tensor& c_0 = {}) const;
};

}  // namespace loom::nn
