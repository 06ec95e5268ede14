// SPDX-License-Identifier: Apache-2.0
// Checkpoints that work: stopped and resumed is never stopped, whatever the number of ranks.
#include <iostream>
#include <limits>
#include <sstream>

#include <loom/accelerators/memory.h>
#include <loom/tensor/safetensors.h>

#include "fabric_checkpoint.h"

using namespace fabric_test;

TEST_CASE("stopped in an epoch and resumed = never stopped, bit for bit") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    const auto path = folder / "new" / "run.safetensors";  // folders are made
    const int64_t stop = 7, end = 25;                      // 3 to 10 steps an epoch
    std::vector<double> losses;
    std::vector<Tensor> at_stop, at_end;
    {
      Fabric fabric(over(ranks));
      fabric.launch([&] {
        Run run(fabric);
        losses = run.train_to(end, [&](int64_t step) {
          if (step != stop) return;
          fabric.save(path, run.state());
          at_stop = run.everything();
        });
        losses.erase(losses.begin(), losses.begin() + stop);
        at_end = run.everything();
      });
    }
    Fabric fabric(over(ranks));
    fabric.launch([&] {
      Run run(fabric, 99);
      CHECK_FALSE(equal_all(run.everything(), at_stop));
      CHECK(fabric.load(path, run.state()).empty());
      CHECK(equal_all(run.everything(), at_stop));
      CHECK(run.note == "step 7");
      CHECK(run.train_to(end) == losses);
      CHECK(equal_all(run.everything(), at_end));
      fabric.load(path, run.state());  // back again, with the loader in use and the optimizer stepped
      CHECK(equal_all(run.everything(), at_stop));
      CHECK(run.train_to(end) == losses);
    });
  });
}

TEST_CASE("saving changes nothing, and two saves of one state are the same file") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    std::vector<double> with, without;
    for (auto* losses : {&with, &without}) {
      Fabric fabric(over(ranks));
      fabric.launch([&] {
        Run run(fabric);
        *losses = run.train_to(9, [&](int64_t step) {
          if (losses != &with || step != 3) return;
          fabric.save(folder / "a", run.state());
          fabric.save(folder.path() / "." / "b", run.state());  // the same folder by another name
          CHECK(contents_of(folder / "a") == contents_of(folder / "b"));
          CHECK(contents_of(folder / "a").size() > 1000);
        });
      });
    }
    CHECK(with == without);
  });
}

TEST_CASE("saved on W ranks, loaded on any other number") {
  for_each_world([](Communicator& world) {
    for (const int from : {1, 2, 4})
      for (const int to : {1, 2, 4}) {
        if (std::max(from, to) > world.size()) continue;
        const SharedFolder folder(world);
        std::vector<Tensor> model, optimizer;
        on_first(world, from, [&](Fabric& fabric) {
          Run run(fabric, 17, 8 / from);
          run.train_to(6);
          fabric.save(folder / "x", run.state());
        });
        on_first(world, to, [&](Fabric& fabric) {
          Run run(fabric, 99, 8 / to);
          fabric.load(folder / "x", run.state());
          CHECK(fabric.global_step() == 6);
          CHECK(run.loader.state().epoch == 1);  // 5 steps of 8 samples are an epoch
          CHECK(run.loader.state().position == 8);
          const auto file = load_safetensors(folder / "x");
          for (const NamedTensor& p : nn::state_dict(run.net))
            CHECK(equal(p.tensor.detach().to(Device::cpu), file.tensors.at("model/" + p.name)));
          for (const auto& [name, x] : run.adamw.state_dict())
            CHECK(equal(x.to(Device::cpu), file.tensors.at("optimizer/" + name)));
          const auto losses = run.train_to(8);
          CHECK(std::isfinite(losses.back()));
          if (to == from) return;
          const Tensor all = fabric.all_gather(run.net.first.weight.detach());
          for (int64_t r = 1; r < to; ++r) CHECK(equal(all[0], all[r]));
        });
      }
  });
}

TEST_CASE("ranks that went on differently keep their own random state") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    Fabric fabric(over(ranks));
    fabric.launch([&] {
      seed_everything(static_cast<uint64_t>(ranks.rank()));
      rand({8 + 2 * ranks.rank()});
      const Generator mine = context().generator;
      fabric.save(folder / "x", {});
      const Tensor drawn = rand({4});
      seed_everything(77);
      fabric.load(folder / "x", {});
      CHECK(context().generator == mine);
      CHECK(equal(rand({4}), drawn));
    });
  });
}

TEST_CASE("numbers, texts and tensors read back as they were") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    Fabric fabric(over(ranks));
    fabric.launch([&] {
      const double infinity = std::numeric_limits<double>::infinity();
      double a = 0.1 + 0.2, b = -infinity, c = std::nan("");
      float f = 1.0F / 3;
      uint64_t u = ~uint64_t{0};
      int64_t i = std::numeric_limits<int64_t>::min();
      uint8_t small = 200;
      bool flag = true;
      std::string text = "line\n\"quoted\" \u00e9/x", none;
      Tensor x = rows(0, 2, 3, f64).t(), h = ones({2}, f16);
      const State state = {{"a", a},         {"b", b},       {"c", c},       {"f", f},       {"u", u}, {"i", i},
                           {"small", small}, {"flag", flag}, {"text", text}, {"none", none}, {"x", x}, {"h", h}};
      fabric.save(folder / "x", state);
      const Tensor before = x.clone();
      x.fill_(0);
      h.fill_(0);
      a = b = c = f = 0;
      u = 0;
      i = 0;
      small = 0;
      flag = false;
      text = none = "other";
      fabric.load(folder / "x", state);
      CHECK(a == 0.1 + 0.2);
      CHECK(b == -infinity);
      CHECK(std::isnan(c));
      CHECK(f == 1.0F / 3);
      CHECK(u == ~uint64_t{0});
      CHECK(i == std::numeric_limits<int64_t>::min());
      CHECK(small == 200);
      CHECK(flag);
      CHECK(text == "line\n\"quoted\" \u00e9/x");
      CHECK(none.empty());
      CHECK(equal(x, before));
      CHECK(equal(h, ones({2}, f16)));
    });
  });
}

TEST_CASE("load returns the names of entries that were not asked for; load_raw reads one module") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    Fabric fabric(over(ranks));
    fabric.launch([&] {
      Net net = seeded(1), other = seeded(2);
      int64_t epoch = 3;
      fabric.save(folder / "x", {{"model", net}, {"epoch", epoch}, {"best", 0 == 0 ? net.first : net.second}});
      CHECK(fabric.load(folder / "x", {{"model", other}}) == std::vector<std::string>{"epoch", "best"});
      CHECK(equal_all(values(net), values(other)));
      CHECK(fabric.load(folder / "x", {}) == std::vector<std::string>{"model", "epoch", "best"});

      if (fabric.is_global_zero()) {
        std::map<std::string, Tensor> plain;
        for (const NamedTensor& p : nn::state_dict(net)) plain.emplace(p.name, p.tensor.detach() + 1.0);
        save_safetensors(folder / "raw", plain);
      }
      fabric.barrier();
      auto model = fabric.setup(other);
      fabric.load_raw(folder / "raw", model);
      CHECK(equal(other.first.weight.detach(), net.first.weight.detach() + 1.0));
    });
  });
}

TEST_CASE("loaders that are gone leave their place in the checkpoint") {
  const auto self = self_communicator();
  const SharedFolder folder(*self);
  Fabric fabric(over(*self));
  fabric.launch([&] {
    const data::DataLoader plain(samples(8), {.batch_size = 2});
    auto kept = fabric.setup_dataloaders(plain);
    for (int fold = 0; fold < 3; ++fold) {
      auto own = fabric.setup_dataloaders(plain);
      for (auto batch : own) break;
    }
    for (auto batch : kept) break;
    fabric.save(folder / "x", {});
    const auto metadata = load_safetensors(folder / "x").metadata;
    CHECK(metadata.at("loom.loader 0/position") == "2");
    CHECK_FALSE(metadata.contains("loom.loader 1/position"));
  });
}

TEST_CASE("loading needs room for one entry besides what it fills") {
  const auto self = self_communicator();
  const SharedFolder folder(*self);
  Fabric fabric(over(*self));
  fabric.launch([&] {
    const int64_t elements = 1 << 20, bytes = elements * 4;
    Tensor a = rand({elements}), b = rand({elements}), c = rand({elements});
    optim::AdamW adamw({{"a", a.requires_grad_()}});
    a.set_grad(ones({elements}));
    adamw.step();
    const State state = {{"a", a}, {"b", b}, {"c", c}, {"optimizer", adamw}};
    fabric.save(folder / "x", state);
    const double first = c[0].item<double>();
    c.fill_(0);
    for (int i = 0; i < 2; ++i) {
      reset_peak_memory_stats();
      const int64_t before = memory_stats().allocated;
      fabric.load(folder / "x", state);
      // The optimizer is the largest entry: two tensors read, copied one by one.
      CHECK(memory_stats().peak_allocated - before < 7 * bytes / 2);
      CHECK(memory_stats().allocated - before < bytes / 2);
    }
    CHECK(c[0].item<double>() == first);
  });
}

TEST_CASE("a save in the middle of an accumulation warns, once, that gradients are not saved") {
  for_each_world([](Communicator& ranks) {
    static std::ostringstream printed;  // of all ranks that are threads
    const SharedFolder folder(ranks);
    std::streambuf* before = nullptr;
    if (ranks.rank() == 0) before = std::cerr.rdbuf(printed.rdbuf());
    ranks.barrier().wait();
    Fabric fabric(over(ranks));
    fabric.launch([&] {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
      auto [model, optimizer] = fabric.setup(net, sgd);
      const State state = {{"model", model}, {"optimizer", optimizer}};
      const auto backward = [&, &model = model] { fabric.backward(mse_loss(model(rows(0, 4, 6)), rows(9, 4, 3))); };
      const auto said = [&] {
        fabric.save(folder / "x", state);
        fabric.barrier();
        const std::string all = ranks.rank() == 0 ? printed.str() : "";  // the launch may have warned of cores
        const size_t at = all.find("loom: save");
        return at == std::string::npos ? std::string() : all.substr(at);
      };
      CHECK(said() == "");
      backward();
      optimizer.step();
      CHECK(said() == "");  // gradients are there, and have been used
      backward();
      sgd.step();  // past Fabric
      CHECK(said() == "");
      backward();
      nn::zero_grad(net);
      CHECK(said() == "");
      backward();
      optimizer.zero_grad(false);
      CHECK(said() == "");
      backward();
      const std::string warning =
          "loom: save: gradients are not saved, and some have been accumulated since the last step: what is resumed "
          "from "
          "the checkpoint lacks them; save after a step\n";
      for (int i = 0; i < 2; ++i) CHECK(said() == (ranks.rank() == 0 ? warning : ""));
    });
    if (ranks.rank() == 0) {
      std::cerr.rdbuf(before);
      printed.str("");
    }
    ranks.barrier().wait();
  });
}
