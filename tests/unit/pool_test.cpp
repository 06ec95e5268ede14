// SPDX-License-Identifier: Apache-2.0
// Memory of bodies and nodes, and the handles that count references.
#include <thread>

#include <loom/autograd/ops.h>
#include <loom/tensor/pool.h>

#include "tensor_test.h"

namespace {

using namespace loom;

struct Watched : Counted, pool::Pooled {
  explicit Watched(int& alive) : alive_(alive) { ++alive_; }
  ~Watched() { --alive_; }
  friend void drop_reference(const Watched& x) noexcept {
    if (x.drop()) delete &x;
  }

 private:
  int& alive_;
};

}  // namespace

TEST_CASE("pool: what was freed is handed out again, by size, and large blocks are not kept") {
  std::thread([] {  // its pool is empty: that of this thread may be full
    for (const size_t bytes : {1, 64, 65, 300, 768}) {
      void* const first = pool::take(bytes);
      pool::give(first, bytes);
      void* const again = pool::take(bytes);
      CHECK(again == first);
      void* const other = pool::take(bytes);
      CHECK(other != first);
      pool::give(again, bytes);
      pool::give(other, bytes);
    }
    pool::give(pool::take(100'000), 100'000);
  })
      .join();
}

TEST_CASE("pool: what one thread took another may give back, also when it ends") {
  std::vector<Tensor> kept;
  std::thread([&] {
    for (int i = 0; i < 100; ++i) kept.push_back(ones({2}) + 1.0);
  }).join();
  std::thread([taken = std::move(kept)]() mutable {
    taken.clear();
    for (int i = 0; i < 100; ++i) taken.push_back(ones({2}));
  }).join();
}

TEST_CASE("ref: counts copies, destroys with the last, stands self-assignment") {
  int alive = 0;
  {
    auto a = make_ref<Watched>(alive);
    CHECK(a->references() == 1);
    auto b = a;
    CHECK(a->references() == 2);
    auto& same = b;
    b = same;
    a = std::move(b);
    CHECK(!b);  // NOLINT
    CHECK(a->references() == 1);
    CHECK(alive == 1);
    a = make_ref<Watched>(alive);
    CHECK(alive == 1);
  }
  CHECK(alive == 0);
}
