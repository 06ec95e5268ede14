// A user's first file with LibTorch: what compiling the README's program is compared with.
#include <torch/torch.h>

struct Net : torch::nn::Module {
  torch::nn::Linear fc1{register_module("fc1", torch::nn::Linear(784, 128))};
  torch::nn::Linear fc2{register_module("fc2", torch::nn::Linear(128, 10))};
  torch::Tensor forward(const torch::Tensor& x) { return fc2(torch::relu(fc1(x.flatten(1)))); }
};

int main() {
  Net net;
  torch::optim::AdamW optimizer(net.parameters(), torch::optim::AdamWOptions(1e-3));
  for (int step = 0; step < 10; ++step) {
    optimizer.zero_grad();
    const torch::Tensor x = torch::randn({64, 784}), y = torch::randint(10, {64});
    torch::nn::functional::cross_entropy(net.forward(x), y).backward();
    optimizer.step();
  }
}
