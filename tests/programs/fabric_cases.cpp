// SPDX-License-Identifier: Apache-2.0
// Programs on Fabric that go wrong, each in its own way, and one that does not. tests/programs/fabric_cases.py starts
// them and judges what becomes of the job.
//   fabric_cases CASE [FOLDER]
#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <string>

#include <loom/accelerators/threads.h>
#include <loom/autograd/ops.h>
#include <loom/fabric/fabric.h>
#include <loom/nn/linear.h>
#include <loom/nn/optim/sgd.h>
#include <loom/tensor/create.h>

using namespace loom;

namespace {

struct Net {
  nn::Linear first{8, 8};
  std::optional<nn::Linear> second = {};
  Tensor operator()(const Tensor& x) const { return first(x); }
  LOOM_MEMBERS(first, second)
};

// What rank 1 does in the middle of an epoch.
void go_wrong(const std::string& how) {
  if (how == "throw") fail("disk quota exceeded");
  if (how == "throw_number") throw 7;
  if (how == "exit") std::exit(3);
  if (how == "kill") std::raise(SIGKILL);
  if (how == "segfault") std::raise(SIGSEGV);
}

void train(Fabric& fabric, const std::string& how) {
  Net net;
  optim::SGD sgd(nn::parameters(net));
  auto [model, optimizer] = fabric.setup(net, sgd);
  for (int64_t step = 0;; ++step) {
    if (step == 5 && how == "throw_all") fail("no data set");
    if (step == 5 && fabric.global_rank() == 1) go_wrong(how);
    optimizer.zero_grad();
    fabric.backward(sum(model(ones({4, 8}))));
    optimizer.step();
  }
}

// A run that ends well.
void few_steps(Fabric& fabric) {
  Net net;
  optim::SGD sgd(nn::parameters(net));
  auto [model, optimizer] = fabric.setup(net, sgd);
  for (int step = 0; step < 3; ++step) {
    optimizer.zero_grad();
    fabric.backward(sum(model(ones({4, 8}))));
    optimizer.step();
  }
}

void different_models(Fabric& fabric) {
  Net net;
  if (fabric.global_rank() == 1) net.second.emplace(8, 3);
  try {
    fabric.setup(net);
  } catch (const Error& error) {
    std::cerr << str("rank ", fabric.global_rank(), " raised: ", error.what(), "\n");
    throw;
  }
}

// A disk that is full after 40 kB: files cannot grow beyond that.
void full_disk(Fabric& fabric, const std::filesystem::path& folder) {
  const auto path = folder / "last.safetensors";
  Tensor small = full({100}, 1.0), large = full({50000}, 2.0);
  fabric.save(path, {{"x", small}});
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{40000, 40000};
  check(setrlimit(RLIMIT_FSIZE, &limit) == 0, "setrlimit failed");
  try {
    fabric.save(path, {{"x", large}});
  } catch (const Error& error) {
    fabric.print("raised: ", error.what());
  }
  small.fill_(0);
  fabric.load(path, {{"x", small}});
  fabric.print("loaded: ", small.sum().item<double>());
}

// Holds the folder's lock until its input ends.
void hold(Fabric& fabric, const std::filesystem::path& folder) {
  double x = 1;
  fabric.save(folder / "last.safetensors", {{"x", x}});
  fabric.print("saved");
  if (fabric.is_global_zero()) std::cin.get();
}

void place(const Fabric& fabric) {
  std::cout << str("rank ", fabric.global_rank(), " of ", fabric.world_size(), ", local rank ", fabric.local_rank(),
                   ", node ", fabric.node_rank(), ", ", num_threads(), " threads\n");
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argv[1];
  const std::filesystem::path folder = argc > 2 ? argv[2] : "";
  Fabric fabric;
  return fabric.launch(argc, argv, [&] {
    if (what == "models")
      different_models(fabric);
    else if (what == "full_disk")
      full_disk(fabric, folder);
    else if (what == "hold")
      hold(fabric, folder);
    else if (what == "place")
      place(fabric);
    else if (what == "few_steps")
      few_steps(fabric);
    else
      train(fabric, what);
  });
}
