// SPDX-License-Identifier: Apache-2.0
// What goes into a forward and comes out of it, in each precision: structs, optionals, maps and what else holds
// tensors.
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <unordered_map>
#include <variant>

#include <loom/nn/recurrent.h>

#include "fabric_worlds.h"

using namespace fabric_test;

namespace {

struct Dtypes {
  const char* precision;
  DType input, output;
};
constexpr Dtypes table[] = {
    {"64-true", f64, f64},    {"32-true", f32, f32},  {"16-true", f16, f32},
    {"bf16-true", bf16, f32}, {"16-mixed", f16, f32}, {"bf16-mixed", bf16, f32},
};

void in_each(const std::function<void(Fabric&, const Dtypes&)>& f) {
  for (const Dtypes& row : table)
    for_each_fabric([&](Fabric& fabric) { f(fabric, row); }, {.precision = row.precision});
}

// A batch; counted copies are of `payload`.
struct Payload {
  Payload() = default;
  Payload(const Payload& other) : copies(other.copies + 1) {}
  Payload& operator=(const Payload&) = default;
  Payload(Payload&&) = default;
  Payload& operator=(Payload&&) = default;
  int copies = 0;
};
struct Batch {
  Tensor x, ids;
  std::optional<Tensor> mask;
  std::map<std::string, Tensor> named;
  Payload payload;
};
Batch batch() { return {ones({2, 6}), arange(2), ones({2}), {{"a", ones({1})}, {"b", arange(1)}}, {}}; }

struct Prediction {
  Tensor logits;
  std::optional<Tensor> hidden;
  std::unordered_map<std::string, Tensor> named;
  std::variant<int, Tensor> either;
  std::pair<Tensor, Tensor> exact;  // f64, i64
};

struct Seeing {
  nn::Linear fc{6, 3};
  mutable std::vector<DType> dtypes = {};
  mutable const void* at = nullptr;
  mutable int copies = 0;
  void look(const Batch& b) const {
    dtypes = {b.x.dtype(), b.ids.dtype(), b.mask->dtype(), b.named.at("a").dtype(), b.named.at("b").dtype()};
    at = &b;
    copies = b.payload.copies;
  }
  Prediction operator()(const Batch& b) const {
    look(b);
    const Tensor y = fc(b.x);
    return {y, y * 1.0, {{"y", y * 2.0}}, y.sum(), {y.to(f64), arange(2)}};
  }
  Tensor away(Batch&& b) const { return look(b), fc(b.x); }
  Tensor alone(const std::optional<Tensor>& x) const { return fc(*x); }
  Tensor many(std::span<const Tensor> xs) const { return fc(xs[0]) + fc(xs[1]); }
  Tensor mapped(const std::unordered_map<std::string, Tensor>& x) const { return fc(x.at("x")); }
  Tensor change(const Tensor& x, Batch& b) const { return b.x = fc(x); }
  Tensor change_at(const Tensor& x, Batch* b) const { return b->x = fc(x); }
  Tensor with(const Tensor& x, const nn::Linear& other) const {
    at = &other;
    return fc(x) + other(x);
  }
  int64_t count(const std::vector<Tensor>& xs) const {
    at = &xs;
    return static_cast<int64_t>(xs.size());
  }
  nn::LstmOutput recurrent(const Tensor& x) const {
    const Tensor y = fc(x);
    return {y, y, y * 1.0};
  }
  LOOM_MEMBERS(fc)
};

}  // namespace

TEST_CASE("precision: arguments that hold tensors, copied once at most") {
  in_each([](Fabric& fabric, const Dtypes& row) {
    Seeing net;
    auto model = fabric.setup(net);
    const std::vector<DType> expected = {row.input, i64, row.input, row.input, i64};
    Batch given = batch();
    const Batch& fixed = given;
    model(given);
    CHECK(net.dtypes == expected);
    CHECK(net.copies == (row.input == f32 ? 0 : 1));
    CHECK((net.at == &given) == (row.input == f32));
    model(fixed);
    CHECK(net.dtypes == expected);
    CHECK(net.copies == (row.input == f32 ? 0 : 1));
    CHECK(given.x.dtype() == f32);
    CHECK(given.named.at("a").dtype() == f32);
    model(batch());
    CHECK(net.dtypes == expected);
    CHECK(net.copies == 0);
    model.call(&Seeing::away, std::move(given));
    CHECK(net.dtypes == expected);
    CHECK(net.copies == 0);
    CHECK(net.at == &given);

    const Tensor x = ones({2, 6});
    const std::vector<Tensor> two = {x, x};
    CHECK(model.call(&Seeing::alone, std::optional(x)).dtype() == row.output);
    CHECK(model.call(&Seeing::many, std::span<const Tensor>(two)).dtype() == row.output);
    CHECK(model.call(&Seeing::many, two).dtype() == row.output);
    CHECK(model.call(&Seeing::mapped, std::unordered_map<std::string, Tensor>{{"x", x}}).dtype() == row.output);
    CHECK(two[0].dtype() == f32);
    const std::vector<Tensor> whole = {arange(2), Tensor()};
    CHECK(model.call(&Seeing::count, whole) == 2);
    CHECK(net.at == &whole);  // nothing to convert
  });
}

TEST_CASE("precision: what the forward changes, and modules, are passed on as they are") {
  in_each([](Fabric& fabric, const Dtypes& row) {
    Seeing net;
    nn::Linear other(6, 3);
    auto model = fabric.setup(net);
    fabric.setup(other);
    Batch kept = batch();
    model.call(&Seeing::change, ones({2, 6}), std::ref(kept));
    CHECK(kept.x.shape() == Dims{2, 3});
    CHECK(kept.mask->dtype() == f32);
    kept = batch();
    model.call(&Seeing::change_at, ones({2, 6}), &kept);
    CHECK(kept.x.shape() == Dims{2, 3});
    CHECK(model.call(&Seeing::with, ones({2, 6}), other).dtype() == row.output);
    CHECK(net.at == &other);
  });
}

TEST_CASE("precision: results that hold tensors") {
  in_each([](Fabric& fabric, const Dtypes& row) {
    Seeing net;
    auto model = fabric.setup(net);
    const Prediction out = model(batch());
    CHECK(out.logits.dtype() == row.output);
    CHECK(out.hidden->dtype() == row.output);
    CHECK(out.named.at("y").dtype() == row.output);
    CHECK(std::get<Tensor>(out.either).dtype() == row.output);
    CHECK(out.exact.first.dtype() == f64);
    CHECK(out.exact.second.dtype() == i64);

    const nn::LstmOutput y = model.call(&Seeing::recurrent, ones({2, 6}));
    for (const Tensor& t : {y.output, y.h_n, y.c_n}) CHECK(t.dtype() == row.output);
  });
}

TEST_CASE("precision: loss.backward() past Fabric is an error also for what comes in structs and maps") {
  for_each_fabric(
      [](Fabric& fabric) {
        Seeing net;
        auto model = fabric.setup(net);
        const std::function<Tensor(const Prediction&)> parts[] = {
            [](const Prediction& p) { return p.logits; },
            [](const Prediction& p) { return *p.hidden; },
            [](const Prediction& p) { return p.named.at("y"); },
            [](const Prediction& p) { return std::get<Tensor>(p.either); },
            [](const Prediction& p) { return p.exact.first; },
        };
        for (const auto& part : parts) {
          CHECK(contains(error_of([&] { part(model(batch())).sum().backward(); }),
                         "requires fabric.backward(loss) instead of loss.backward()"));
          fabric.backward(part(model(batch())).sum());
        }
      },
      {.precision = "16-mixed"});
}

TEST_CASE("a struct of outputs tells DDP which backward is its forward's") {
  for_each_fabric([](Fabric& fabric) {
    Seeing net = seeded<Seeing>();
    auto model = fabric.setup(net);
    const Prediction first = model(batch()), second = model(batch());
    fabric.backward(first.logits.sum());
    fabric.backward(second.hidden->sum() * static_cast<double>(fabric.global_rank() + 1));
    const Tensor all = fabric.all_gather(net.fc.weight.grad());
    for (int64_t r = 1; r < fabric.world_size(); ++r) CHECK(equal(all[r], all[0]));
  });
}
