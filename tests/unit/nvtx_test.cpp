// SPDX-License-Identifier: Apache-2.0
// What a tool of NVIDIA's hears, where NVTX_INJECTION64_PATH names one: here tests/nvtx.
#include <doctest/doctest.h>

#include <dlfcn.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <loom/accelerators/profiler.h>
#include <loom/autograd/ops.h>
#include <loom/nn/linear.h>
#include <loom/tensor/create.h>

using namespace loom;

namespace {

class Tool {
 public:
  explicit Tool(const char* file) : library_(dlopen(file, RTLD_LAZY | RTLD_NOLOAD)) {}
  bool is_loaded() const { return library_ != nullptr; }
  int pushes() const { return call<int>("heard_pushes"); }
  int pops() const { return call<int>("heard_pops"); }
  int wrong() const { return call<int>("heard_wrong"); }
  std::vector<std::string> names_since(int first) const {
    const auto name = reinterpret_cast<const char* (*)(int)>(dlsym(library_, "heard_name"));
    std::vector<std::string> out;
    for (int i = first; i < pushes(); ++i) out.emplace_back(name(i));
    return out;
  }

 private:
  template <class T>
  T call(const char* function) const {
    return reinterpret_cast<T (*)()>(dlsym(library_, function))();
  }
  void* library_;
};

using Names = std::vector<std::string>;

// None: no tool is attached.
std::optional<Tool> tool() {
  const char* const file = std::getenv("NVTX_INJECTION64_PATH");
  if (file == nullptr) {
    MESSAGE("skipped: NVTX_INJECTION64_PATH names no tool");
    return std::nullopt;
  }
  { const auto first = record_function("the first range attaches the tool"); }
  Tool out(file);
  REQUIRE(out.is_loaded());
  return out;
}

}  // namespace

TEST_CASE("NVTX: ranges of ops, modules, backward and the user, each begun and ended") {
  const auto heard = tool();
  if (!heard) return;
  const nn::Linear layer(2, 2);
  const Tensor x = ones({1, 2});
  const int first = heard->pushes();
  {
    const auto range = record_function("mine");
    sum(layer(x)).backward();
  }
  const Names names = heard->names_since(first);
  for (const char* name : {"mine", "Linear", "linear", "sum", "sum backward", "linear backward"})
    CHECK(std::ranges::count(names, name) >= 1);
  CHECK(names.front() == "mine");
  CHECK(heard->pops() == heard->pushes());
  CHECK(heard->wrong() == 0);
}

TEST_CASE("NVTX: an op that throws ends its range") {
  const auto heard = tool();
  if (!heard) return;
  const int first = heard->pushes();
  CHECK_THROWS_AS(matmul(ones({2, 3}), ones({2, 3})), Error);
  CHECK(heard->names_since(first).back() == "matmul");
  CHECK(heard->pops() == heard->pushes());
}

TEST_CASE("NVTX: beside a trace that begins and ends within a range, on several threads") {
  const auto heard = tool();
  if (!heard) return;
  const int first = heard->pushes();
  const auto work = [] {
    const auto range = record_function("around");
    const Tensor x = relu(ones({3}));
  };
  {
    const auto range = record_function("outside");
    std::optional<Profiler> profiler(std::in_place);
    const auto inside = record_function("inside");
    std::thread other(work);
    work();
    other.join();
    profiler.reset();
  }
  CHECK(std::ranges::count(heard->names_since(first), "around") == 2);
  CHECK(heard->pops() == heard->pushes());
  CHECK(heard->wrong() == 0);
}
