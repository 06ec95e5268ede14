// SPDX-License-Identifier: Apache-2.0
// Recurrent layers in each of Fabric's precisions: the dtypes of results and gradients, and that training gets where
// f32 gets.
#include <loom/nn/recurrent.h>

#include "fabric_worlds.h"

using namespace fabric_test;

namespace {

constexpr const char* precisions[] = {"64-true", "32-true", "16-true", "bf16-true", "16-mixed", "bf16-mixed"};

FabricOptions in(const std::string& precision) { return {.precision = precision}; }

bool is_true(const std::string& precision) { return precision.ends_with("-true"); }

DType low_of(const std::string& precision) {
  return precision.starts_with("64")   ? f64
         : precision.starts_with("32") ? f32
         : precision.starts_with("16") ? f16
                                       : bf16;
}

// Two layers both ways, then the last step through a linear layer.
template <class Layer>
struct Net {
  Layer layer{6, 8, {.num_layers = 2, .bidirectional = true}};
  nn::Linear head{16, 3};
  mutable DType output = boolean, state = boolean;
  Tensor operator()(const Tensor& x) const {
    const auto y = layer(x);
    output = y.output.dtype();
    state = y.h_n.dtype();
    if constexpr (requires { y.c_n; }) CHECK(y.c_n.dtype() == state);
    return head(y.output[-1]);
  }
  LOOM_MEMBERS(layer, head)
};

// Four sequences of five steps, and what is to be told of them.
Tensor sequences(int64_t number) { return rows(20 * number, 20, 6).reshape({5, 4, 6}); }
Tensor targets(int64_t number) { return rows(900 + 4 * number, 4, 3); }

template <class Layer>
std::vector<double> losses(Fabric& fabric, int steps) {
  auto net = seeded<Net<Layer>>();
  optim::SGD sgd(nn::parameters(net), {.lr = 0.3, .momentum = 0.9});
  auto [model, optimizer] = fabric.setup(net, sgd);
  const std::string precision(fabric.precision().name());
  const int64_t number = fabric.global_rank();
  std::vector<double> out;
  for (int step = 0; step < steps; ++step) {
    optimizer.zero_grad();
    const Tensor loss = mse_loss(model(sequences(number)), targets(number));
    CHECK(net.output == low_of(precision));
    CHECK(net.state == low_of(precision));
    fabric.backward(loss);
    for (const NamedTensor& p : nn::parameters(net)) {
      CHECK(p.tensor.dtype() == (is_true(precision) ? low_of(precision) : f32));
      CHECK(p.tensor.grad().dtype() == p.tensor.dtype());
    }
    CHECK(optimizer.step());
    out.push_back(fabric.all_reduce(loss).template item<double>());
  }
  return out;
}

// A few roundings of the precision's dtype, of the loss at first.
double tolerance(const std::string& precision) {
  const DType low = low_of(precision);
  return low == f16 ? 0x1p-9 : low == bf16 ? 0x1p-6 : 1e-5;
}

template <class Layer>
void check_training() {
  constexpr int steps = 24;
  for_each_fabric([](Fabric& fabric) {
    const std::vector<double> plain = losses<Layer>(fabric, steps);
    CHECK(plain.back() < 0.8 * plain.front());
    for (const std::string precision : precisions) {
      CAPTURE(precision);
      Fabric other(over(fabric.communicator(), in(precision)));
      other.launch([&] {
        const std::vector<double> found = losses<Layer>(other, steps);
        for (int step = 0; step < steps; ++step)
          CHECK(std::abs(found[step] - plain[step]) <= tolerance(precision) * plain.front());
      });
    }
  });
}

}  // namespace

TEST_CASE("an LSTM trains in each precision as in 32-true") { check_training<nn::LSTM>(); }
TEST_CASE("a GRU trains in each precision as in 32-true") { check_training<nn::GRU>(); }
TEST_CASE("an RNN trains in each precision as in 32-true") { check_training<nn::RNN>(); }
