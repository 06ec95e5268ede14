// SPDX-License-Identifier: Apache-2.0
// Fabric's collectives, and what runs on some ranks before others.
#include <iostream>
#include <sstream>

#include "fabric_worlds.h"

using namespace fabric_test;

TEST_CASE("all_reduce: every operation, and the argument stays as it is") {
  for_each_fabric([](Fabric& fabric) {
    const double n = fabric.world_size(), r = fabric.global_rank();
    const Tensor x = tensor({r + 1, -r}, f64);
    const auto reduced = [&](const char* op) { return fabric.all_reduce(x, op); };
    CHECK(equal(reduced("sum"), tensor({n * (n + 1) / 2, -n * (n - 1) / 2}, f64)));
    CHECK(equal(reduced("mean"), tensor({(n + 1) / 2, -(n - 1) / 2}, f64)));
    CHECK(equal(reduced("avg"), reduced("mean")));
    CHECK(equal(fabric.all_reduce(x), reduced("mean")));
    CHECK(equal(reduced("min"), tensor({1.0, -(n - 1)}, f64)));
    CHECK(equal(reduced("max"), tensor({n, 0.0}, f64)));
    CHECK(reduced("product")[0].item<double>() == std::tgamma(n + 1));
    CHECK(equal(x, tensor({r + 1, -r}, f64)));
    CHECK(fabric.all_reduce(r, "max") == n - 1);
    CHECK(fabric.all_reduce(r) == (n - 1) / 2);
    CHECK(fabric.all_reduce(tensor({int64_t{1} << 40}), "sum").item<int64_t>() == (int64_t{1} << 40) * int64_t(n));
    CHECK(equal(fabric.all_reduce(rows(0, 4, 6).t(), "max"), rows(0, 4, 6).t()));  // not contiguous
  });
}

TEST_CASE("all_reduce: unknown operations and means of whole numbers") {
  for_each_fabric([](Fabric& fabric) {
    const Tensor x = ones({2});
    CHECK(error_of([&] { fabric.all_reduce(x, "median"); }) ==
          "all_reduce: unknown reduce_op 'median'; available: mean, sum, min, max, product");
    CHECK(error_of([&] { fabric.all_reduce(1.0, ""); }) ==
          "all_reduce: unknown reduce_op ''; available: mean, sum, min, max, product");
    CHECK(contains(error_of([&] { fabric.all_reduce(arange(3)); }),
                   "mean of i64 is not defined; expected a floating dtype"));
    CHECK(fabric.all_reduce(x, "sum").sum().item<double>() == 2.0 * fabric.world_size());  // the group is still usable
  });
}

TEST_CASE("all_gather: one more dimension, also on one rank, and every dtype") {
  for_each_fabric([](Fabric& fabric) {
    const int64_t n = fabric.world_size(), r = fabric.global_rank();
    const Tensor all = fabric.all_gather(full({2, 3}, static_cast<double>(r), f32));
    CHECK(all.shape() == Dims{n, 2, 3});
    for (int64_t i = 0; i < n; ++i) CHECK(equal(all[i], full({2, 3}, static_cast<double>(i), f32)));
    CHECK(fabric.all_gather(full({}, 1.5)).shape() == Dims{n});
    CHECK(fabric.all_gather(zeros({0, 2})).shape() == Dims{n, 0, 2});
    CHECK(fabric.all_gather(tensor({r + (int64_t{1} << 53) + 1}, i64))[n - 1].item<int64_t>() ==
          n + (int64_t{1} << 53));
    for (const DType dtype : {f64, f16, bf16, i32, u8}) {
      const Tensor gathered = fabric.all_gather(full({3}, static_cast<double>(r), dtype));
      CHECK(gathered.dtype() == dtype);
      CHECK(gathered.to(f64).sum().item<double>() == 3.0 * static_cast<double>(n * (n - 1)) / 2);
    }
  });
}

TEST_CASE("all_gather_ragged: rows differ by rank, down to none") {
  for_each_fabric([](Fabric& fabric) {
    const int64_t r = fabric.global_rank();
    const auto parts = fabric.all_gather_ragged(rows(10 * r, r, 4));
    REQUIRE(std::ssize(parts) == fabric.world_size());
    for (int64_t i = 0; i < fabric.world_size(); ++i) {
      CHECK(parts[static_cast<size_t>(i)].shape() == Dims{i, 4});
      if (i > 0) CHECK(equal(parts[static_cast<size_t>(i)], rows(10 * i, i, 4)));
    }
    CHECK(error_of([&] { fabric.all_gather_ragged(full({}, 1.0)); }) ==
          "all_gather_ragged: expects at least 1 dimension, got a number");
  });
}

TEST_CASE("broadcast: tensors, texts and numbers from every rank") {
  for_each_fabric([](Fabric& fabric) {
    for (int src = 0; src < fabric.world_size(); ++src) {
      const bool mine = fabric.global_rank() == src;
      const Tensor sent = rows(src, 2, 3, f64).t();
      const Tensor got = fabric.broadcast(mine ? sent : Tensor(), src);
      CHECK(got.dtype() == f64);
      CHECK(equal(got, sent));
      CHECK(fabric.broadcast(mine ? zeros({0, 5}) : Tensor(), src).shape() == Dims{0, 5});
      CHECK(fabric.broadcast(mine ? full({}, src, i32) : Tensor(), src).item<int32_t>() == src);
      CHECK(fabric.broadcast(mine ? str("from ", src) : "", src) == str("from ", src));
      CHECK(fabric.broadcast(mine ? 0.1 + src : 0.0, src) == 0.1 + src);
      CHECK(fabric.broadcast(mine ? ~uint64_t{0} : 0, src) == ~uint64_t{0});
      CHECK(fabric.broadcast(mine, src) == true);
    }
    CHECK(fabric.broadcast("a literal") == "a literal");
    const int src = fabric.world_size() - 1;
    CHECK(error_of([&] { fabric.broadcast(fabric.global_rank() == src ? Tensor() : ones({1}), src); }) ==
          str("broadcast: rank ", src, " gave an undefined tensor to send"));
    CHECK(contains(error_of([&] { fabric.broadcast(1.0, fabric.world_size()); }), "is not a rank of the group"));
    CHECK(contains(error_of([&] { fabric.broadcast(ones({1}), -1); }), "root -1 is not a rank of the group"));
    fabric.barrier();
  });
}

TEST_CASE("rank_zero_first: rank 0 before the others") {
  for_each_world([](Communicator& ranks) {
    const SharedFolder folder(ranks);
    Fabric fabric(over(ranks));
    fabric.launch([&] {
      for (const bool local : {false, true}) {
        const auto mark = folder / (local ? "local" : "global");
        bool seen = false;
        fabric.rank_zero_first(
            [&] {
              seen = std::filesystem::exists(mark);
              if (fabric.is_global_zero()) std::ofstream(mark) << "done";
            },
            local);
        CHECK(seen == !fabric.is_global_zero());
      }
    });
  });
}

TEST_CASE("rank_zero_first: an error on one rank is raised on all, and nothing hangs") {
  for_each_fabric([](Fabric& fabric) {
    int runs = 0;
    const auto fails_on = [&](int rank) {
      return error_of([&] {
        fabric.rank_zero_first([&] {
          ++runs;
          check(fabric.global_rank() != rank, "no network");
        });
      });
    };
    CHECK(fails_on(0) == "rank 0: no network");
    CHECK(runs == (fabric.is_global_zero() ? 1 : 0));  // the others did not begin
    const int last = fabric.world_size() - 1;
    CHECK(fails_on(last) == str("rank ", last, ": no network"));
    CHECK(error_of([&] { fabric.rank_zero_first([] { throw 7; }); }) == "rank 0: an exception of unknown type");
    CHECK(fabric.all_reduce(1.0, "sum") == fabric.world_size());
  });
}

TEST_CASE("print: the first rank of a node, whole lines") {
  for_each_world([](Communicator& ranks) {
    static std::ostringstream printed;  // of all ranks that are threads
    std::streambuf* before = nullptr;
    if (ranks.rank() == 0) before = std::cout.rdbuf(printed.rdbuf());
    ranks.barrier().wait();
    Fabric fabric(over(ranks));
    fabric.launch([&] {
      fabric.print("rank ", fabric.global_rank(), " of ", fabric.world_size(), ": ", 0.5);
      fabric.barrier();
    });
    if (ranks.rank() == 0) {
      std::cout.rdbuf(before);
      CHECK(printed.str() == str("rank 0 of ", ranks.size(), ": 0.5\n"));
      printed.str("");
    }
    ranks.barrier().wait();
  });
}
