// SPDX-License-Identifier: Apache-2.0
#include <loom/accelerators/cuda/block.h>

#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <memory>
#include <mutex>
#include <random>
#include <utility>
#include <vector>

namespace loom::cuda::emulated {

thread_local Place place;

namespace {

constexpr size_t stack_bytes = 128 << 10;
constexpr int warp = 32;

enum class State : uint8_t { ready, at_warp, at_block, ended };

struct Fiber {
  ucontext_t context{};
  std::unique_ptr<std::byte[]> stack{new std::byte[stack_bytes]};
  dim3 thread;
  State state = State::ready;
};

struct Warp {
  std::array<uint64_t, warp> given{}, taken{};  // in the exchange that goes on; in the last one
  uint32_t votes = 0, voted = 0;
};

// One at a time: what kernels share is static.
struct Block {
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Warp> warps;
  std::vector<std::byte> shared;
  ucontext_t scheduler{};
  size_t current = 0;
  const std::function<void()>* kernel = nullptr;
  std::exception_ptr error;
  std::mt19937 order{1};
};
Block block;
std::mutex running;

void enter() {
  try {
    (*block.kernel)();
  } catch (...) {
    block.error = std::current_exception();
  }
  Fiber& self = *block.fibers[block.current];
  self.state = State::ended;
  swapcontext(&self.context, &block.scheduler);
}

void yield(State state) {
  Fiber& self = *block.fibers[block.current];
  self.state = state;
  swapcontext(&self.context, &block.scheduler);
}

void resume(size_t i) {
  block.current = i;
  place.thread = block.fibers[i]->thread;
  swapcontext(&block.scheduler, &block.fibers[i]->context);
}

// All threads of a warp that live have come to its barrier.
bool release_warps(size_t threads) {
  bool any = false;
  for (size_t first = 0; first < threads; first += warp) {
    const size_t last = std::min(threads, first + warp);
    bool all = true, waits = false;
    for (size_t i = first; i < last; ++i) {
      const State s = block.fibers[i]->state;
      all = all && (s == State::at_warp || s == State::ended);
      waits = waits || s == State::at_warp;
    }
    if (!all || !waits) continue;
    Warp& w = block.warps[first / warp];
    w.taken = w.given;
    w.voted = std::exchange(w.votes, 0);
    for (size_t i = first; i < last; ++i)
      if (block.fibers[i]->state == State::at_warp) block.fibers[i]->state = State::ready;
    any = true;
  }
  return any;
}

bool release_block(size_t threads) {
  bool any = false;
  for (size_t i = 0; i < threads; ++i) {
    const State s = block.fibers[i]->state;
    if (s == State::at_warp) {
      std::fputs("emulated CUDA: threads of a block wait at different barriers\n", stderr);
      std::abort();
    }
    any = any || s == State::at_block;
  }
  for (size_t i = 0; i < threads; ++i)
    if (block.fibers[i]->state == State::at_block) block.fibers[i]->state = State::ready;
  return any;
}

void start(size_t i, dim3 thread) {
  if (block.fibers.size() <= i) block.fibers.push_back(std::make_unique<Fiber>());
  Fiber& f = *block.fibers[i];
  f.thread = thread;
  f.state = State::ready;
  getcontext(&f.context);
  f.context.uc_stack.ss_sp = f.stack.get();
  f.context.uc_stack.ss_size = stack_bytes;
  f.context.uc_link = &block.scheduler;
  makecontext(&f.context, enter, 0);
}

void run_block(dim3 threads) {
  size_t count = 0;
  for (unsigned z = 0; z < threads.z; ++z)
    for (unsigned y = 0; y < threads.y; ++y)
      for (unsigned x = 0; x < threads.x; ++x) start(count++, dim3(x, y, z));
  block.warps.assign((count + warp - 1) / warp, {});
  std::vector<size_t> turn(count);
  for (size_t i = 0; i < count; ++i) turn[i] = i;
  do {
    std::ranges::shuffle(turn, block.order);
    for (const size_t i : turn)
      if (block.fibers[i]->state == State::ready) resume(i);
  } while (release_warps(count) || release_block(count));
}

}  // namespace

void run(dim3 blocks, dim3 threads, size_t shared, const std::function<void()>& kernel) {
  const std::lock_guard lock(running);
  block.kernel = &kernel;
  block.error = nullptr;
  block.shared.assign(shared + 16, std::byte{0xff});
  place.threads = threads;
  place.blocks = blocks;
  for (unsigned z = 0; z < blocks.z; ++z)
    for (unsigned y = 0; y < blocks.y; ++y)
      for (unsigned x = 0; x < blocks.x; ++x) {
        place.block = dim3(x, y, z);
        run_block(threads);
      }
  if (block.error) std::rethrow_exception(block.error);
}

void* dynamic_shared() {
  const auto at = reinterpret_cast<uintptr_t>(block.shared.data());
  return reinterpret_cast<void*>((at + 15) / 16 * 16);
}

void block_barrier() { yield(State::at_block); }

uint64_t exchange(uint64_t value, int from) {
  Warp& w = block.warps[block.current / warp];
  w.given[block.current % warp] = value;
  yield(State::at_warp);
  return w.taken[static_cast<size_t>(from)];
}

uint32_t ballot(bool value) {
  Warp& w = block.warps[block.current / warp];
  if (value) w.votes |= uint32_t{1} << (block.current % warp);
  yield(State::at_warp);
  return w.voted;
}

}  // namespace loom::cuda::emulated
