// SPDX-License-Identifier: Apache-2.0
// Checkpoints that do not fit, are damaged or cannot be written: every rank hears of it, and nothing has changed.
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include <loom/tensor/safetensors.h>

#include "fabric_checkpoint.h"

using namespace fabric_test;

namespace {

std::atomic<int> flock_error = 0;  // what the call below fails with; 0: nothing

}  // namespace

// Stands before the C library's, also for libloom: file systems whose locks fail are rare where tests run.
extern "C" int flock(int file, int operation) noexcept {
  if (flock_error == 0) return static_cast<int>(syscall(SYS_flock, file, operation));
  errno = flock_error;
  return -1;
}

namespace {

struct Some {
  nn::Linear second{12, 3}, other{2, 2};
  LOOM_MEMBERS(second, other)
};

struct Wider {
  nn::Linear first{6, 13}, second{12, 3}, third{3, 3};
  LOOM_MEMBERS(first, second, third)
};

}  // namespace

TEST_CASE("another model: missing, unexpected and mis-shaped keys are all named, on every rank") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    Fabric fabric(over(ranks));
    fabric.launch([&] {
      Net net = seeded();
      Wider wider;
      const auto path = folder / "x";
      fabric.save(path, {{"model", net}});
      const auto before = values(wider);
      CHECK(error_of([&] {
              fabric.load(path, {{"model", wider}});
            }) ==
            str("load: ", path.string(), ": entry 'model': load_state_dict: missing keys: third.weight, third.bias; ",
                "shapes differ: first.weight is [13, 6] here and [12, 6] in the values, first.bias is [13] here and ",
                "[12] in the values"));
      CHECK(equal_all(values(wider), before));
      nn::Linear part(6, 12);
      CHECK(contains(
          error_of([&] {
            fabric.load(path, {{"model", part}});
          }),
          "missing keys: weight, bias; unexpected keys: first.bias, first.weight, second.bias, second.weight"));
      // Not strict: what fits is loaded; shapes must fit.
      CHECK(contains(error_of([&] { fabric.load(path, {{"model", wider}}, false); }), "shapes differ: first.weight"));
      Some some;
      fabric.load(path, {{"model", some}}, false);
      CHECK(equal(some.second.weight.detach(), net.second.weight.detach()));
    });
  });
}

TEST_CASE("an entry that the file lacks, and entries of another kind") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    Fabric fabric(over(ranks));
    fabric.launch([&] {
      Net net = seeded();
      optim::AdamW adamw(nn::parameters(net));
      int64_t epoch = 3;
      int8_t tiny = 1;
      double rate = 0.5;
      std::string text = "twelve";
      const auto path = folder / "x";
      fabric.save(path, {{"model", net}, {"epoch", epoch}, {"text", text}, {"rate", rate}});
      const auto error = [&](const State& state) { return error_of([&] { fabric.load(path, state); }); };
      const std::string where = str("load: ", path.string(), ": ");
      CHECK(error({{"coconut", epoch}}) ==
            where +
                "the requested state contains a key 'coconut' that does not exist in the loaded checkpoint; to "
                "disable strict loading, set strict=false");
      epoch = 8;
      fabric.load(path, {{"coconut", rate}, {"epoch", epoch}}, false);
      CHECK(epoch == 3);
      CHECK(rate == 0.5);
      CHECK(error({{"text", epoch}}) == where + "entry 'text': 'twelve' is not a whole number");
      CHECK(error({{"text", rate}}) == where + "entry 'text': 'twelve' is not a number");
      CHECK(error({{"rate", epoch}}) == where + "entry 'rate': '0.5' is not a whole number");
      CHECK(error({{"model", rate}}) == where + "entry 'model': the checkpoint's entry has no value 'value'");
      CHECK(contains(error({{"epoch", net}}), where + "entry 'epoch': load_state_dict: missing keys: first.weight"));
      CHECK(contains(error({{"model", adamw}}), where + "entry 'model': AdamW::load_state_dict: missing keys: "));
      epoch = 300;
      fabric.save(path, {{"epoch", epoch}});
      CHECK(error({{"epoch", tiny}}) == where + "entry 'epoch': '300' does not fit its variable");
      CHECK(tiny == 1);

      data::DataLoader loader(samples(8), {});
      StateEntry moved(loader);
      for (const char* position : {"-4", "9"}) {
        moved.save = [&] {
          return StateDict{{},
                           {{"epoch", "2"}, {"over", "8 samples, in order"}, {"position", position}, {"seed", "1"}}};
        };
        fabric.save(path, {{"loader", moved}});
        CHECK(error({{"loader", loader}}) ==
              str(where, "entry 'loader': DataLoader: load_state: position ", position,
                  " of epoch 2, expects one of 0 to 8 of an epoch from 0 on (8 samples, in order)"));
      }
    });
  });
}

TEST_CASE("a later entry that does not fit leaves the earlier ones as they were, on every rank") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    Fabric fabric(over(ranks));
    fabric.launch([&] {
      Run saved(fabric);
      saved.train_to(4);
      fabric.save(folder / "x", saved.state());
      for (const bool stepped : {false, true}) {
        Fabric second(over(ranks));
        second.launch([&] {
          Run run(second, 99);
          if (stepped) run.train_to(2);
          const auto before = run.everything();
          State state = run.state();
          state.emplace_back("absent", run.count);
          CHECK(contains(error_of([&] { second.load(folder / "x", state); }), "contains a key 'absent'"));
          CHECK(equal_all(run.everything(), before));
          // On one rank only.
          state = run.state();
          if (second.global_rank() == second.world_size() - 1) state.back().first = "absent";
          CHECK(contains(error_of([&] { second.load(folder / "x", state); }), "contains a key 'absent'"));
          CHECK(equal_all(run.everything(), before));
          second.load(folder / "x", run.state());
          CHECK(equal_all(run.everything(), saved.everything()));
        });
      }
    });
  });
}

TEST_CASE("files that are truncated, random, of another kind or absent") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    Fabric fabric(over(ranks));
    fabric.launch([&] {
      Net net = seeded();
      const auto path = folder / "x", damaged = folder / "damaged";
      fabric.save(path, {{"model", net}});
      const std::string whole = contents_of(path);
      const auto before = values(net);
      const auto error_with = [&](const std::string& bytes) {
        fabric.barrier();
        if (fabric.is_global_zero()) std::ofstream(damaged, std::ios::binary) << bytes;
        fabric.barrier();
        return error_of([&] { fabric.load(damaged, {{"model", net}}); });
      };
      std::vector<size_t> lengths = {0, 1, 7, 8, 9, whole.size() - 1};
      for (size_t n = 16; n < whole.size(); n += whole.size() / 12) lengths.push_back(n);
      for (const size_t n : lengths)
        CHECK_MESSAGE(contains(error_with(whole.substr(0, n)), "safetensors: " + damaged.string()), n);
      std::string noise(5000, '\0');
      for (size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<char>(Philox{9, 0, i}.block(0)[0]);
      CHECK(contains(error_with(noise), "safetensors: " + damaged.string()));
      CHECK(contains(error_with(whole + "more"), "safetensors: " + damaged.string()));
      CHECK(error_with(whole).empty());
      CHECK(equal_all(values(net), before));

      const auto absent = folder / "absent";
      CHECK(error_of([&] { fabric.load(absent, {}); }) == "load: checkpoint file not found: " + absent.string());
      CHECK(contains(error_of([&] { fabric.load(folder.path(), {}); }), folder.path().string()));
      if (fabric.is_global_zero()) save_safetensors(absent, {{"first.weight", ones({2})}});
      fabric.barrier();
      CHECK(error_of([&] {
              fabric.load(absent, {{"model", net}});
            }) == str("load: ", absent.string(),
                      " is not a checkpoint of fabric.save; a file of one module's tensors is read by load_raw"));
      CHECK(contains(error_of([&] { fabric.load_raw(absent, net); }),
                     str("load_raw: ", absent.string(), ": load_state_dict: missing keys: first.bias")));
    });
  });
}

TEST_CASE("save: one rank that fails is heard on all, and the file that was there stays") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    Fabric fabric(over(ranks));
    fabric.launch([&] {
      Net net = seeded();
      const auto path = folder / "x";
      fabric.save(path, {{"model", net}});
      const std::string before = contents_of(path);
      const int last = ranks.size() - 1;
      const StateEntry broken(
          [&]() -> StateDict {
            check(ranks.rank() != last, "out of memory");
            return {};
          },
          [](const StateDict&, bool) {});
      const std::string prefix = ranks.size() > 1 ? str("rank ", last, ": ") : "";
      CHECK(error_of([&] {
              fabric.save(path, {{"model", net}, {"broken", broken}});
            }) == prefix + "save: entry 'broken': out of memory");
      CHECK(contents_of(path) == before);
      CHECK(fabric.all_reduce(1.0, "sum") == ranks.size());
    });
  });
}

namespace {

// Whose state is of all ranks: collected by a collective, as PowerSGD's. Verified only where `check` is given.
StateEntry of_all_ranks(Communicator& ranks, double& x, const std::function<void()>& verify = {}) {
  const auto save = [&ranks, &x] {
    const Tensor sum = full({}, x, f64);
    ranks.all_reduce(sum).wait();
    return StateDict({{"sum", sum}});
  };
  const auto load = [&ranks, &x](const StateDict& saved, bool) {
    ranks.barrier().wait();
    x = saved.tensors.at("sum").item<double>() / ranks.size();
  };
  if (!verify) return {save, load};
  return {save, [&ranks, verify](const StateDict&, bool) { ranks.barrier().wait(), verify(); }, load};
}

}  // namespace

TEST_CASE("entries that communicate: one that fails on one rank is heard on all") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    Fabric fabric(over(ranks));
    fabric.launch([&] {
      const auto path = folder / "x";
      const int last = ranks.size() - 1;
      const std::string prefix = ranks.size() > 1 ? str("rank ", last, ": ") : "";
      const auto on_last = [&](const char* text) { check(ranks.rank() != last, text); };
      double x = ranks.rank(), y = 5;
      const StateEntry plain(y), shared = of_all_ranks(ranks, x);
      const StateEntry unsaved(
          [&] {
            on_last("out of memory");
            return plain.save();
          },
          plain.load);
      const StateEntry unloaded(plain.save, [&](const StateDict& saved, bool strict) {
        if (saved.value("value") == "5") on_last("no such device");
        plain.load(saved, strict);
      });
      const StateEntry unfit(
          plain.save, [&](const StateDict&, bool) { on_last("does not fit"); }, plain.load);
      const StateEntry checked = of_all_ranks(ranks, x, [] {});

      CHECK(error_of([&] {
              fabric.save(path, {{"y", unsaved}, {"shared", shared}});
            }) == prefix + "save: entry 'y': out of memory");
      fabric.save(path, {{"y", plain}, {"shared", shared}, {"checked", checked}});
      x = y = 7;
      const std::string where = prefix + "load: " + path.string() + ": entry 'y': ";
      const auto load = [&](const State& state) { return error_of([&] { fabric.load(path, state); }); };
      CHECK(load({{"y", unsaved}, {"shared", shared}}) == where + "out of memory");
      CHECK(load({{"shared", shared}, {"y", unloaded}, {"checked", checked}}) == where + "no such device");
      CHECK(load({{"y", unfit}, {"checked", checked}, {"shared", shared}}) == where + "does not fit");
      CHECK(x == 7);
      CHECK(y == 7);
      fabric.load(path, {{"y", plain}, {"shared", shared}, {"checked", checked}});
      CHECK(x == (ranks.size() - 1) / 2.0);
      CHECK(y == 5);
    });
  });
}

TEST_CASE("ranks that name different entries") {
  for_each_world([](Communicator& ranks) {
    if (ranks.size() == 1) return;
    const SharedFolder folder(ranks);
    Fabric fabric(over(ranks));
    fabric.launch([&] {
      double x = 1, y = 2;
      const auto path = folder / "x";
      fabric.save(path, {{"x", x}, {"y", y}});
      State state = {{"x", x}};
      if (ranks.rank() == 1) state.emplace_back("y", y);
      const std::string differ = "the ranks' entries differ: rank 0 has 'x', rank 1 'x', 'y'";
      CHECK(error_of([&] { fabric.save(path, state); }) == "save: " + differ);
      CHECK(error_of([&] { fabric.load(path, state); }) == str("load: ", path.string(), ": ", differ));
    });
  });
}

TEST_CASE("save: names, folders and disks that do not take it") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    Fabric fabric(over(ranks));
    fabric.launch([&] {
      double x = 1;
      const auto error = [&](const State& state) { return error_of([&] { fabric.save(folder / "x", state); }); };
      const std::string rule = "' of an entry must not be empty, contain '/' or start with 'loom.'";
      for (const char* name : {"", "a/b", "loom.step"}) CHECK(error({{name, x}}) == str("the name '", name, rule));
      CHECK(error({{"x", x}, {"x", x}}) == "the state has two entries named 'x'");
      const std::string other = ranks.size() > 1 ? "rank 0: " : "";  // rank 0 writes
      if (fabric.is_global_zero()) std::ofstream(folder / "file") << "not a folder";
      fabric.barrier();
      CHECK(contains(error_of([&] {
                       fabric.save(folder / "file" / "x", {{"x", x}});
                     }),
                     other + "save: cannot make the directory " + (folder / "file").string()));
      if (std::filesystem::exists("/dev/full"))
        CHECK(error_of([&] {
                fabric.save("/proc/loom/x", {{"x", x}});
              }) == other + "save: cannot make the directory /proc/loom: No such file or directory");
      CHECK(fabric.all_reduce(1.0, "sum") == ranks.size());
    });
  });
}

TEST_CASE("save: a link in the lock's place is refused, and what it points to stays") {
  const auto self = self_communicator();
  const SharedFolder folder(*self);
  std::ofstream(folder / "precious") << "not ours";
  std::filesystem::create_symlink(folder / "precious", folder / ".loom.lock");
  double x = 1;
  Fabric fabric(over(*self));
  fabric.launch([&] {
    CHECK(contains(error_of([&] {
                     fabric.save(folder / "x", {{"x", x}});
                   }),
                   "save: cannot open " + (folder / ".loom.lock").string() + ", the checkpoint directory's lock: "));
  });
  CHECK(contents_of(folder / "precious") == "not ours");
}

TEST_CASE("a loader over other samples than the checkpoint's is an error, on every rank, and nothing has changed") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    const auto path = folder / "x";
    const auto over_samples = [](int64_t count, bool shuffle) {
      return data::DataLoader(samples(count), {.batch_size = 2, .shuffle = shuffle});
    };
    const auto in_the_middle = [](auto& loader) {
      for ([[maybe_unused]] auto batch : loader) break;
    };
    Fabric fabric(over(ranks));
    fabric.launch([&] {
      auto train = fabric.setup_dataloaders(over_samples(40, true));
      auto val = fabric.setup_dataloaders(over_samples(16, false));
      in_the_middle(train);
      int64_t epoch = 3;
      fabric.save(path, {{"epoch", epoch}});
    });
    // Each line: the loaders of the program that resumes, by samples and shuffling, and what it is told.
    struct Line {
      std::vector<std::pair<int64_t, bool>> loaders;
      const char *there, *here;
    };
    const std::vector<Line> lines = {
        {{{16, false}, {40, true}}, "40 samples, shuffled", "16 samples, in order"},  // in another order
        {{{10, true}}, "40 samples, shuffled", "10 samples, shuffled"},
        {{{40, false}}, "40 samples, shuffled", "40 samples, in order"},
    };
    for (const auto& [loaders, there, here] : lines) {
      Fabric second(over(ranks));
      second.launch([&] {
        std::vector<FabricDataLoader<data::DataLoader<data::TensorDataset<2>>>> made;
        made.reserve(loaders.size());
        for (const auto& [count, shuffle] : loaders)
          made.push_back(second.setup_dataloaders(over_samples(count, shuffle)));
        int64_t epoch = 0;
        CHECK(error_of([&] {
                second.load(path, {{"epoch", epoch}});
              }) == str("load: ", path.string(), ": entry 'loom.loader 0': the checkpoint's loader goes over ", there,
                        ", the one here over ", here,
                        "; set up the loaders that the checkpoint was saved with, in that order, or new ones after "
                        "load, or set strict=false"));
        CHECK(epoch == 0);
        CHECK(made.front().state().position == 0);
        second.load(path, {{"epoch", epoch}}, false);
        CHECK(epoch == 3);
        CHECK(made.front().state().position == 0);
      });
    }
    Fabric third(over(ranks));
    third.launch([&] {
      auto train = third.setup_dataloaders(over_samples(40, true));
      auto val = third.setup_dataloaders(over_samples(16, false));
      third.load(path, {});
      CHECK(train.state().position == 2 * third.world_size());
      CHECK(val.state().position == 0);
    });
  });
}

TEST_CASE("a checkpoint of another version says so") {
  const auto self = self_communicator();
  const SharedFolder folder(*self);
  const auto path = folder / "x";
  save_safetensors(path, {}, {{"loom.format", "checkpoint 1"}, {"loom.entries", ""}});
  Fabric fabric(over(*self));
  fabric.launch([&] {
    CHECK(
        error_of([&] { fabric.load(path, {}); }) ==
        str("load: ", path.string(), " is a 'checkpoint 1' of another version of Loom, this one reads 'checkpoint 2'"));
  });
}

TEST_CASE("load_raw: one rank that fails leaves all as they were") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    Fabric fabric(over(ranks));
    fabric.launch([&] {
      Tensor x = full({3}, 1.0);
      if (fabric.is_global_zero()) save_safetensors(folder / "raw", {{"value", full({3}, 2.0)}});
      fabric.barrier();
      const int last = ranks.size() - 1;
      const StateEntry plain(x);
      const auto load = [&](const StateDict& saved, bool strict) {
        if (saved.tensors.at("value")[0].item<double>() == 2) check(ranks.rank() != last, "no such device");
        plain.load(saved, strict);
      };
      const StateEntry unverified(plain.save, load);
      CHECK(contains(error_of([&] { fabric.load_raw(folder / "raw", unverified); }), "no such device"));
      CHECK(equal(x, full({3}, 1.0)));
      const StateEntry verified(
          plain.save, [&](const StateDict&, bool) { check(ranks.rank() != last, "does not fit"); }, plain.load);
      CHECK(contains(error_of([&] { fabric.load_raw(folder / "raw", verified); }), "does not fit"));
      CHECK(equal(x, full({3}, 1.0)));
    });
  });
}

TEST_CASE("save: a file system that cannot lock is not another writer") {
  const auto self = self_communicator();
  const SharedFolder folder(*self);
  double x = 1;
  Fabric fabric(over(*self));
  fabric.launch([&] {
    flock_error = ENOLCK;
    const std::string text = error_of([&] { fabric.save(folder / "x", {{"x", x}}); });
    flock_error = 0;
    CHECK(text == str("save: cannot lock ", (folder / ".loom.lock").string(), ": ", std::strerror(ENOLCK)));
    fabric.save(folder / "x", {{"x", x}});
  });
}

TEST_CASE("save: another writer's lock, and what a killed save left behind") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    double x = 1;
    {
      Fabric holder(over(ranks)), other(over(ranks));
      holder.launch();
      other.launch();
      if (ranks.rank() == 0) {
        std::ofstream(folder / "x.99999.3.tmp") << "half";
        std::ofstream(folder / "x.backup.tmp") << "the user's";
      }
      holder.save(folder / "x", {{"x", x}});
      if (ranks.rank() == 0) {
        CHECK_FALSE(std::filesystem::exists(folder / "x.99999.3.tmp"));
        CHECK(std::filesystem::exists(folder / "x.backup.tmp"));
      }
      const std::string text = error_of([&] { other.save(folder / "y", {{"x", x}}); });
      CHECK(contains(text, "save: the checkpoint directory " + folder.path().string() +
                               " is being written by another Fabric of this program, which holds it until its launch "
                               "returns (or, where it saves outside of launch, until its end)"));
      holder.save(folder / "x", {{"x", x}});
    }
    ranks.barrier().wait();
    Fabric next(over(ranks));
    next.launch([&] { next.save(folder / "y", {{"x", x}}); });  // given up with its Fabric
  });
}

TEST_CASE("save: Fabrics one after the other write one directory, also while the first is alive or has failed") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    double x = 1;
    Fabric first(over(ranks)), second(over(ranks));
    first.launch([&] {
      first.save(folder / "x", {{"x", x}});
      second.launch();
      CHECK(contains(error_of([&] { second.save(folder / "x", {{"x", x}}); }), "another Fabric of this program"));
    });
    second.launch([&] {
      second.save(folder / "x", {{"x", x}});
      CHECK(contains(error_of([&] { first.save(folder / "x", {{"x", x}}); }), "another Fabric of this program"));
      second.save(folder / "x", {{"x", x}});
    });
    const auto fails = [&] {
      first.save(folder / "x", {{"x", x}});
      fail("the end");
    };
    CHECK(error_of([&] { first.launch(fails); }) == "the end");
    second.launch([&] { second.save(folder / "y", {{"x", x}}); });
  });
}
