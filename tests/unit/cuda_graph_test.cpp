// SPDX-License-Identifier: Apache-2.0
// Captured steps: what a replay does is what the step does as it is. Without a GPU the device is one that the host
// plays (tests/cuda/emulated), whose graphs run their nodes in any order that the graph allows.
#include <doctest/doctest.h>

#include <thread>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cuda.h>
#include <loom/accelerators/sync_debug.h>
#include <loom/autograd/ops.h>
#include <loom/nn/nn.h>
#include <loom/nn/optim/optim.h>
#include <loom/tensor/create.h>
#include <loom/tensor/device_graph.h>

using namespace loom;

namespace {

const Device gpu(Device::cuda);

bool has_device() {
  if (device_count(Device::cuda) > 0) return true;
  MESSAGE("skipped: " << cuda_description());
  return false;
}

struct Mlp {
  nn::Linear first{6, 16}, second{16, 4};
  nn::Dropout dropout{0.3};
  Tensor operator()(const Tensor& x) const { return second(dropout(relu(first(x)))); }
  LOOM_MEMBERS(first, second, dropout)
};

// Convolutions, running statistics, pools; words, attention.
struct Mixed {
  nn::Conv2d conv{2, 4, 3, {.padding = 1}};
  nn::BatchNorm2d norm{4};
  nn::Embedding words{7, 8};
  nn::LayerNorm layer_norm{8};
  nn::Linear head{8, 3};
  Tensor operator()(const Tensor& image, const Tensor& text) const {
    const Tensor seen = flatten(max_pool2d(relu(norm(conv(image))), 2), 1);          // [2, 16]
    const Tensor x = layer_norm(words(text)).reshape({2, 1, 5, 8});                  // [2, 1, 5, 8]
    const Tensor read = scaled_dot_product_attention(x, x, x, {.is_causal = true});  // [2, 1, 5, 8]
    return head(read.reshape({2, 5, 8}).mean(1) + seen.reshape({2, 2, 8}).sum(1));
  }
  LOOM_MEMBERS(conv, norm, words, layer_norm, head)
};

// A batch of step i, on the host.
Tensor batch(int i) {
  Tensor x = arange(0, 48, 1, f32).reshape({8, 6}) * 0.02 - 0.5;
  return x * (1 + 0.1 * i);
}

// The losses of `steps` steps, then all parameters.
template <class Optimizer, class Options>
std::vector<Tensor> train(bool as_graph, int steps, const Options& options, DType dtype = f32) {
  manual_seed(3);
  Mlp net;
  nn::to(net, {dtype, gpu});
  Optimizer optimizer(nn::parameters(net), options);
  optim::StepLR schedule(optimizer, 3, 0.7);
  const Tensor input = empty({8, 6}, {dtype, gpu}), target = arange(0, 8, 1, i64).to(gpu) % 4;
  DeviceGraph graph(as_graph ? gpu : Device());
  Tensor loss;
  std::vector<Tensor> out;
  for (int i = 0; i < steps; ++i) {
    input.copy_(batch(i).to(dtype));
    graph.run([&] {
      loss = cross_entropy(net(input), target);
      loss.backward();
      optimizer.step();
      optimizer.zero_grad();
    });
    schedule.step();
    out.push_back(loss.detach().to(Device()));
  }
  CHECK(graph.is_captured() == as_graph);
  CHECK(optimizer.step_counts().taken == steps);
  for (const auto& [name, p] : nn::parameters(net)) out.push_back(p.detach().to(Device()));
  for (const auto& [name, x] : optimizer.state_dict()) out.push_back(x.to(Device()));
  return out;
}

void check_same(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    CAPTURE(i);
    CHECK(equal(a[i], b[i]));
  }
}

}  // namespace

TEST_CASE("a captured step with dropout, AdamW and a schedule trains as the step does") {
  if (!has_device()) return;
  const optim::AdamWOptions options{.lr = 0.02};
  check_same(train<optim::AdamW>(true, 20, options), train<optim::AdamW>(false, 20, options));
}

TEST_CASE("convolutions, norms, pools, words and attention in a captured step") {
  if (!has_device()) return;
  const auto trained = [](bool as_graph) {
    manual_seed(4);
    Mixed net;
    nn::to(net, gpu);
    optim::SGD sgd(nn::parameters(net), {.lr = 0.05});
    const Tensor image = empty({2, 2, 4, 4}, {f32, gpu}), text = empty({2, 5}, {i64, gpu});
    const Tensor target = arange(0, 2, 1, i64).to(gpu);
    DeviceGraph graph(as_graph ? gpu : Device(), {.warm_up = 1});
    for (int i = 0; i < 5; ++i) {
      image.copy_(randn({2, 2, 4, 4}));
      text.copy_(randint(0, 7, {2, 5}));
      graph.run([&] {
        cross_entropy(net(image, text), target).backward();
        sgd.step();
        sgd.zero_grad();
      });
    }
    std::vector<Tensor> out;
    for (const auto& [name, x] : nn::state_dict(net)) out.push_back(x.detach().to(Device()));
    return out;
  };
  check_same(trained(true), trained(false));
}

TEST_CASE("what a replay finds wrong with its input is told of at the next wait") {
  if (!has_device()) return;
  const Tensor table = ones({4, 2}, {f32, gpu}), index = zeros({3}, {i64, gpu}), out = empty({3, 2}, {f32, gpu});
  DeviceGraph graph(gpu);
  graph.capture([&] { out.copy_(index_select(table, 0, index)); });
  graph.replay();
  synchronize(gpu);
  index.fill_(9);
  graph.replay();
  CHECK_THROWS_WITH(synchronize(gpu), "index_select: index 9 is out of range for dimension 0 of size 4");
}

TEST_CASE("every optimizer's step can be captured, in 16 bits too") {
  if (!has_device()) return;
  const optim::SgdOptions sgd{.lr = 0.05, .momentum = 0.9, .dampening = 0.2};
  check_same(train<optim::SGD>(true, 7, sgd), train<optim::SGD>(false, 7, sgd));
  check_same(train<optim::SGD>(true, 6, optim::SgdOptions{.lr = 0.1}),
             train<optim::SGD>(false, 6, optim::SgdOptions{.lr = 0.1}));
  const optim::AdagradOptions adagrad{.lr = 0.05, .lr_decay = 0.1};
  check_same(train<optim::Adagrad>(true, 7, adagrad), train<optim::Adagrad>(false, 7, adagrad));
  const optim::RmspropOptions rmsprop{.lr = 0.01, .momentum = 0.5};
  check_same(train<optim::RMSprop>(true, 7, rmsprop), train<optim::RMSprop>(false, 7, rmsprop));
  const optim::AdamWOptions adam{.lr = 0.02, .amsgrad = true};
  check_same(train<optim::AdamW>(true, 7, adam, bf16), train<optim::AdamW>(false, 7, adam, bf16));
}

TEST_CASE("an optimizer's state may be made while its step is captured") {
  if (!has_device()) return;
  const auto stepped = [](bool as_graph) {
    const Tensor x = full({5}, 1, {f32, gpu}).requires_grad_();
    optim::AdamW adam(std::vector<NamedTensor>{{"x", x}}, {.lr = 0.1});
    DeviceGraph graph(as_graph ? gpu : Device(), {.warm_up = 0});
    for (int i = 0; i < 4; ++i)
      graph.run([&] {
        adam.zero_grad();
        (x * x).sum().backward();
        adam.step();
      });
    return std::vector{x.detach().to(Device()), adam.state_dict().at("step.x")};
  };
  check_same(stepped(true), stepped(false));
}

TEST_CASE("random numbers go on from replay to replay, and follow the seed") {
  if (!has_device()) return;
  const auto drawn = [](bool as_graph) {
    manual_seed(11);
    std::vector<Tensor> out;
    Tensor x, y;
    DeviceGraph graph(as_graph ? gpu : Device(), {.warm_up = 1});
    for (int i = 0; i < 6; ++i) {
      if (i == 4) manual_seed(12);
      graph.run([&] {
        x = randn({7}, {f32, gpu});
        y = randint(0, 1000, {5}, {i64, gpu}) + rand({5}, {f64, gpu});
      });
      out.insert(out.end(), {x.to(Device()), y.to(Device()), rand({3})});  // the host's go on behind
    }
    return out;
  };
  const auto graph = drawn(true);
  check_same(graph, drawn(false));
  CHECK_FALSE(equal(graph[6], graph[9]));
}

TEST_CASE("side streams take part, memory that they share with the main one too") {
  if (!has_device()) return;
  const Tensor input = empty({64}, {f32, gpu}), output = empty({64}, {f32, gpu});
  DeviceGraph graph(gpu);
  graph.capture([&] {
    const Stream main = current_stream(gpu), side = stream(gpu, Lane::copy);
    for (int i = 0; i < 3; ++i) {
      const Tensor doubled = input * 2.0;
      side.wait(main.record());
      accelerator(gpu).use_by(View(doubled).data, side.handle());
      {
        const StreamScope scope(side);
        output.copy_(doubled + static_cast<double>(i));
      }
    }
    main.wait(side.record());
    output.add_(input);
  });
  for (int i = 0; i < 5; ++i) {
    input.fill_(i);
    graph.replay();
    CHECK(equal(output.to(Device()), full({64}, 3 * i + 2)));
  }
}

TEST_CASE("a side stream that does not come back spoils the capture, and nothing else") {
  if (!has_device()) return;
  const Tensor x = ones({3}, {f32, gpu});
  const Stream main = current_stream(gpu), side = stream(gpu, Lane::copy);
  DeviceGraph graph(gpu);
  const auto work = [&](bool comes_back) {
    side.wait(main.record());
    {
      const StreamScope scope(side);
      x.add_(1);
    }
    if (comes_back) main.wait(side.record());
  };
  CHECK_THROWS_AS(graph.capture([&] { work(false); }), Error);
  CHECK_FALSE(graph.is_captured());
  graph.capture([&] { work(true); });
  graph.replay();
  CHECK(equal(x.to(Device()), full({3}, 2)));
}

TEST_CASE("what a captured step lets go of stays as long as its graph") {
  if (!has_device()) return;
  const Tensor output = zeros({1000}, {f32, gpu});
  Tensor lost = full({1000}, 3, {f32, gpu});
  DeviceGraph graph(gpu);
  graph.capture([&] {
    output.add_(lost);
    lost = Tensor();
  });
  const Tensor other = full({1000}, 7, {f32, gpu}), more = full({1000}, 9, {f32, gpu});
  for (int i = 0; i < 2; ++i) graph.replay();
  CHECK(equal(output.to(Device()), full({1000}, 6)));
  const int64_t before = memory_stats(gpu).cached;
  graph.reset();
  CHECK(memory_stats(gpu).cached > before);
  CHECK_THROWS_WITH(graph.replay(), "DeviceGraph: replay() before capture()");
}

TEST_CASE("a host that would wait for what is captured is told so, and the graph is none") {
  if (!has_device()) return;
  const Tensor x = ones({3}, {f32, gpu}), host = ones({3});
  DeviceGraph graph(gpu);
  const std::string wait =
      ": the host would wait for cuda:0, where a graph is being captured: nothing of it has been done yet; read "
      "results after replay()";
  CHECK_THROWS_WITH(graph.capture([&] { (void)x.sum().item<float>(); }), ("item" + wait).c_str());
  CHECK_THROWS_WITH(graph.capture([&] { (void)x.to(Device()); }), ("to" + wait).c_str());
  CHECK_THROWS_WITH(graph.capture([&] { (void)x.to_vector<float>(); }), ("to_vector" + wait).c_str());
  CHECK_THROWS_WITH(graph.capture([&] { synchronize(gpu); }),
                    "the host would wait for cuda:0, where a graph is being captured: nothing of it has been done yet; "
                    "wait after replay()");
  CHECK_THROWS_WITH(graph.capture([&] { x.copy_(host); }),
                    "copy_: memory of the host goes to cuda:0, where a graph is being captured: a replay would not "
                    "read it again; copy it before the step, into a tensor that stays");
  CHECK_THROWS_WITH(graph.capture([] { (void)rand({3}); }),
                    "uniform: random numbers on the host while a graph is captured: each replay would have the same; "
                    "draw them on the device");
  CHECK_FALSE(graph.is_captured());
  CHECK(x.sum().item<float>() == 3);  // nothing is left of it
  graph.capture([&] { x.add_(1); });
  graph.replay();
  CHECK(x.sum().item<float>() == 6);
}

TEST_CASE("other threads go on while a graph is captured, but for waiting for the whole device") {
  if (!has_device()) return;
  const Tensor x = ones({3}, {f32, gpu}), other = ones({4}, {f32, gpu});
  synchronize(gpu);
  const auto meanwhile = [](const auto& work) { std::thread(work).join(); };
  DeviceGraph graph(gpu);
  graph.capture([&] {
    x.add_(1);
    meanwhile([&] {
      const StreamScope scope(stream(gpu, Lane::copy));
      CHECK_THROWS_WITH(synchronize(gpu),
                        "the host would wait for all of cuda:0, where another thread captures a graph; wait for a "
                        "stream or an event of your own");
    });
    meanwhile([&] {
      const Stream copies = stream(gpu, Lane::copy);
      const StreamScope scope(copies);
      const Tensor sum = other + ones({4}).to(gpu);
      copies.synchronize();
      CHECK(equal(sum.to(Device()), full({4}, 2.0)));
      accelerator(gpu).empty_cache();
    });
    meanwhile([&] {
      const StreamScope scope(stream(gpu, Lane::copy));
      DeviceGraph second(gpu);
      CHECK_THROWS_AS(second.capture([] {}), Error);
    });
    x.add_(1);
  });
  graph.replay();
  CHECK(equal(x.to(Device()), full({3}, 3.0)));
}

TEST_CASE("capturing is no wait that sync debug finds") {
  if (!has_device()) return;
  const Tensor x = ones({3}, {f32, gpu});
  DeviceGraph graph(gpu, {.warm_up = 0});
  {
    const SyncDebugScope scope(SyncDebugMode::error);
    for (int i = 0; i < 2; ++i) graph.run([&] { x.add_(1); });
  }
  CHECK(equal(x.to(Device()), full({3}, 3.0)));
}

TEST_CASE("on the host a graph calls the step") {
  DeviceGraph graph{Device()};
  int calls = 0;
  graph.capture([&] { ++calls; });
  CHECK(calls == 0);
  for (int i = 0; i < 3; ++i) graph.replay();
  CHECK(calls == 3);
  graph.run([&] { calls = 10; });
  CHECK(calls == 10);
}
