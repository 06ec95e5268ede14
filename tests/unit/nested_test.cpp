// SPDX-License-Identifier: Apache-2.0
// Which tensors are seen in a value, and which are replaced.
#include <loom/tensor/nested.h>

#include <doctest/doctest.h>

#include <array>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>

#include <loom/autograd/ops.h>
#include <loom/nn/linear.h>
#include <loom/tensor/create.h>

using namespace loom;

namespace {

Tensor one(double value) { return full({1}, value); }

// The values of the tensors in x, in order; -1 first where not all could be looked into.
template <class T>
std::vector<double> seen(const T& x) {
  std::vector<Tensor> found;
  std::vector<double> out;
  if (!nested::find_tensors(x, found)) out.push_back(-1);
  for (const Tensor& t : found) out.push_back(t.item<double>());
  return out;
}

// The same after all that may be replaced has become ten times as much.
template <class T>
std::vector<double> tenfold(T x) {
  return seen(map_tensors([](const Tensor& t) { return t * 10.0; }, std::move(x)));
}

using Values = std::vector<double>;

struct Plain {
  Tensor a, b;
  int64_t count = 0;
  std::string name;
};
struct Options {
  std::optional<Tensor> first, second;
  std::variant<int, Tensor, Plain> either;
  std::map<std::string, std::vector<Tensor>> named;
};
struct Tree {
  std::vector<Tree> children;
  Tensor x;
};
struct Linked {
  Tensor x;
  Linked* parent = nullptr;
  std::vector<std::shared_ptr<Linked>> children;
};
struct Nine {
  Tensor a;
  int b, c, d, e, f, g, h, i;
};
struct Derived : Plain {
  Tensor c;
};
struct WithArray {
  Tensor a;
  float numbers[2];
};
class Listed {
 public:
  explicit Listed(Tensor a) : a_(std::move(a)) {}
  LOOM_MEMBERS(a_)
 private:
  Tensor a_;
};
struct Incomplete;

}  // namespace

TEST_CASE("nested: what is seen and replaced") {
  const Tensor x = one(1), y = one(2), z = one(3);
  CHECK(tenfold(x) == Values{10});
  CHECK(tenfold(std::vector{x, y}) == Values{10, 20});
  CHECK(tenfold(std::deque{x, y}) == Values{10, 20});
  CHECK(tenfold(std::array{x, y}) == Values{10, 20});
  CHECK(tenfold(std::tuple{x, 3, y}) == Values{10, 20});
  CHECK(tenfold(std::pair{std::string("x"), y}) == Values{20});
  CHECK(tenfold(std::map<int, Tensor>{{2, y}, {1, x}}) == Values{10, 20});
  CHECK(tenfold(std::unordered_map<std::string, Tensor>{{"x", x}}) == Values{10});
  CHECK(tenfold(std::optional<Tensor>()).empty());
  CHECK(tenfold(std::optional(std::vector{x})) == Values{10});
  CHECK(tenfold(std::variant<int, Tensor>(x)) == Values{10});
  CHECK(tenfold(std::variant<int, Tensor>(4)).empty());
  CHECK(tenfold(Plain{x, Tensor(), 5, "name"}) == Values{10});
  CHECK(tenfold(Options{x, {}, Plain{y, z, 5, ""}, {{"z", {z, z}}}}) == Values{10, 20, 30, 30, 30});
  CHECK(tenfold(Tree{{Tree{{}, x}, Tree{{Tree{{}, y}}, y}}, z}) == Values{10, 20, 20, 30});
  CHECK(tenfold(Listed(x)) == Values{10});
  CHECK(tenfold(std::vector<std::pair<Plain, bool>>{{Plain{x, y, 0, ""}, true}}) == Values{10, 20});
}

TEST_CASE("nested: what is seen, but is not the value's own, stays") {
  Tensor x = one(1);
  CHECK(tenfold(&x) == Values{1});
  CHECK(tenfold(std::make_shared<Plain>(Plain{x, x, 0, ""})) == Values{1, 1});
  CHECK(tenfold(std::span(&x, 1)) == Values{1});
  CHECK(tenfold(std::vector{&x}) == Values{1});
  CHECK(tenfold(std::tuple<Tensor&, Tensor>(x, x)) == Values{1, 10});
  CHECK(tenfold(std::pair<const Tensor, Tensor>(x, x)) == Values{1, 10});
  CHECK(tenfold(std::vector{Parameter(x)}) == Values{1});
  CHECK(seen(std::unique_ptr<Tensor>()).empty());
  CHECK(x.item<double>() == 1);
}

TEST_CASE("nested: numbers, texts and what has no members hold nothing; the rest is opaque") {
  CHECK(seen(3).empty());
  CHECK(seen(true).empty());
  CHECK(seen("text").empty());
  CHECK(seen(std::string("text")).empty());
  CHECK(seen(std::vector<bool>{true, false}).empty());
  CHECK(seen(std::monostate()).empty());
  CHECK(seen(DType::f32).empty());
  const Values opaque = {-1};
  CHECK(seen(std::function<void()>()) == opaque);
  CHECK(seen(std::filesystem::path("a/b")) == opaque);
  CHECK(seen(Nine{one(1), 1, 2, 3, 4, 5, 6, 7, 8}) == opaque);
  CHECK(seen(Derived{{one(1), one(2), 0, ""}, one(3)}) == opaque);
  CHECK(seen(WithArray{one(1), {1, 2}}) == opaque);
  CHECK(seen(static_cast<Incomplete*>(nullptr)) == opaque);
  CHECK(seen(&one) == opaque);
  CHECK(seen(std::pair{one(1), std::function<void()>()}) == Values{-1, 1});
}

TEST_CASE("nested: what may own tensors") {
  using nested::may_own;
  CHECK(may_own<Plain>());
  CHECK(may_own<Options>());
  CHECK(may_own<Tree>());
  CHECK(may_own<std::vector<std::optional<Tensor>>>());
  CHECK(may_own<nn::Linear>());  // may be: it lists its members
  CHECK_FALSE(may_own<std::vector<int64_t>>());
  CHECK_FALSE(may_own<std::span<Tensor>>());
  CHECK_FALSE(may_own<Tensor*>());
  CHECK_FALSE(may_own<std::shared_ptr<Plain>>());
  CHECK_FALSE(may_own<std::tuple<Tensor&, int>>());
  CHECK_FALSE(may_own<std::reference_wrapper<Plain>>());
  CHECK_FALSE(may_own<Nine>());
}

TEST_CASE("nested: pointers back end where they began") {
  Linked root{one(1), nullptr, {}};
  root.children.push_back(std::make_shared<Linked>(Linked{one(2), &root, {}}));
  std::vector<Tensor> found;
  CHECK(nested::find_tensors(root, found));
  CHECK(found.size() >= 2);
  found.clear();
  CHECK(nested::find_tensors(root.children[0], found));
  CHECK(found.size() == 2);
}
