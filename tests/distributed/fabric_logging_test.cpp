// SPDX-License-Identifier: Apache-2.0
// Loggers and callbacks.
#include <loom/fabric/csv_logger.h>

#include "fabric_worlds.h"

using namespace fabric_test;

namespace {

class Memory final : public Logger {
 public:
  void log_metrics(const Metrics& metrics, std::optional<int64_t> step) override {
    for (const auto& [name, value] : metrics) lines += str(step.value_or(-1), " ", name, "=", value, ";");
  }
  void finalize() override { lines += "end"; }
  std::string lines;
};

class Counting : public Callback {
 public:
  void on_after_setup(Fabric&) override { ++setups; }
  void on_after_optimizer_step(Fabric& fabric) override { last_step = fabric.global_step(); }
  void on_epoch_end(int epoch, const std::string& note) { heard = str(epoch, note); }
  int rounds() const { return 1; }
  int setups = 0;
  int64_t last_step = 0;
  std::string heard;
};

class Deaf final : public Callback {};

}  // namespace

TEST_CASE("log and log_dict go to every logger, from rank 0") {
  for_each_world([](Communicator& ranks) {
    const auto first = std::make_shared<Memory>(), second = std::make_shared<Memory>();
    Fabric fabric(over(ranks, {.loggers = {first, second}}));
    fabric.launch([&] {
      fabric.log("loss", 0.5, 3);
      fabric.log("loss", tensor({0.25}));
      fabric.log("count", full({}, 7, i64));
      fabric.log_dict({{"b", 2}, {"a", 1}}, 4);
      CHECK(error_of([&] {
              fabric.log("grid", ones({2, 2}));
            }) == "log: the metric 'grid' has shape [2, 2]; expected a single element");  // on every rank
    });
    const std::string expected = "3 loss=0.5;-1 loss=0.25;-1 count=7;4 a=1;4 b=2;end";
    CHECK(first->lines == (ranks.rank() == 0 ? expected : ""));
    CHECK(second->lines == first->lines);
    Fabric none(over(ranks));
    none.launch([&] { none.log("loss", 1.0); });
  });
}

TEST_CASE("CsvLogger: layout, versions, rows on disk at once, a header that grows") {
  const TemporaryFolder folder;
  CsvLogger first({.root = folder.path()});
  CHECK_FALSE(std::filesystem::exists(folder / "lightning_logs"));  // made with the first row
  first.log_metrics({{"loss", 0.5}}, 10);
  const auto file = folder / "lightning_logs/version_0/metrics.csv";
  CHECK(contents_of(file) == "loss,step\n0.5,10\n");
  first.log_metrics({{"loss", 0.25}}, {});
  CHECK(contents_of(file) == "loss,step\n0.5,10\n0.25,11\n");
  first.log_metrics({{"accuracy", 0.1 + 0.2}, {"zeal", std::nan("")}}, 12);
  CHECK(contents_of(file) == "accuracy,loss,step,zeal\n,0.5,10,\n,0.25,11,\n0.30000000000000004,,12,nan\n");
  first.log_metrics({{"loss", -INFINITY}}, {});
  CHECK(contents_of(file) == "accuracy,loss,step,zeal\n,0.5,10,\n,0.25,11,\n0.30000000000000004,,12,nan\n,-inf,13,\n");
  CHECK(error_of([&] {
          first.log_metrics({{"a,b", 1}}, {});
        }) == "CsvLogger: the metric name 'a,b' must not contain commas, quotes or line ends");
  CHECK(error_of([&] {
          first.log_metrics({{"step", 1}}, 5);
        }) == "CsvLogger: 'step' is the column of the step, not the name of a metric; pass it as the step");

  CsvLogger second({.root = folder.path()});
  second.log_metrics({{"loss", 1}}, {});
  CHECK(second.directory() == folder / "lightning_logs/version_1");
  CHECK(contents_of(second.directory() / "metrics.csv") == "loss,step\n1,0\n");
  std::filesystem::create_directories(folder / "lightning_logs/version_10x");
  std::filesystem::create_directories(folder / "lightning_logs/version_9");
  CHECK(CsvLogger({.root = folder.path()}).directory() == folder / "lightning_logs/version_10");
  CHECK(CsvLogger({.root = folder.path(), .name = "mine", .version = "today"}).directory() == folder / "mine/today");
}

TEST_CASE("CsvLogger: a version that is there is gone on with, and nothing of it is lost") {
  const TemporaryFolder folder;
  const CsvLoggerOptions options{.root = folder.path(), .name = "mine", .version = "today"};
  const auto file = folder / "mine/today/metrics.csv";
  CsvLogger(options).log_metrics({{"loss", 0.5}}, 10);
  CsvLogger(options).log_metrics({{"loss", 0.25}}, {});
  CHECK(contents_of(file) == "loss,step\n0.5,10\n0.25,11\n");
  {
    CsvLogger third(options);
    third.log_metrics({{"accuracy", 1}}, {});
    third.log_metrics({{"loss", 2}}, {});
  }
  CHECK(contents_of(file) == "accuracy,loss,step\n,0.5,10\n,0.25,11\n1,,12\n,2,13\n");
  // Columns in another order, and a last line that was cut.
  std::ofstream(file) << "step,loss,epoch\n3,0.5,\n4,0.";
  CsvLogger(options).log_metrics({{"loss", 7}}, {});
  CHECK(contents_of(file) == "epoch,loss,step\n,0.5,3\n,0.,4\n,7,5\n");
  for (const auto& [text, error] :
       {std::pair("a,b\n1,2\n", " is there and has no column 'step', so it is not CsvLogger's; log to another version"),
        std::pair("loss,step\n\"1,5\",2\n", " has 3 fields, its header 2; log to another version")}) {
    std::ofstream(file) << text;
    CHECK(contains(error_of([&] { CsvLogger(options).log_metrics({{"loss", 7}}, {}); }), error));
    CHECK(contents_of(file) == text);
  }
}

TEST_CASE("CsvLogger: a folder that cannot be made is named") {
  const TemporaryFolder folder;
  folder.write("file", "");
  CsvLogger logger({.root = folder / "file"});
  CHECK(contains(error_of([&] { logger.log_metrics({{"loss", 1}}, {}); }), "CsvLogger: cannot make the directory "));
}

TEST_CASE("callbacks: hooks of Fabric, and any member function by call") {
  for_each_world([](Communicator& ranks) {
    const auto counting = std::make_shared<Counting>();
    Fabric fabric(over(ranks, {.callbacks = {std::make_shared<Deaf>(), counting}}));
    fabric.launch([&] {
      Net net = seeded();
      optim::SGD sgd(nn::parameters(net));
      auto [model, optimizer] = fabric.setup(net, sgd);
      CHECK(counting->setups == 1);
      auto again = fabric.setup_module(net);
      CHECK(counting->setups == 1);
      fabric.backward(sum(model(rows(0, 2, 6))));
      optimizer.step();
      optimizer.step();
      CHECK(counting->last_step == 2);
      fabric.call(&Counting::on_epoch_end, 3, "rd");
      CHECK(counting->heard == "3rd");
      fabric.call(&Counting::rounds);
    });
  });
}
