// SPDX-License-Identifier: Apache-2.0
// A GPU's properties and memory as a user sees them; with LOOM_POISON=1 what it finds.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <string_view>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cuda.h>
#include <loom/tensor/create.h>

#include "../error_of.h"

using namespace loom;
using loom::testing::error_of;

namespace {

bool skipped() {
  if (device_count(Device::cuda) > 0) return false;
  MESSAGE("skipped: " << cuda_description());
  return true;
}

bool poisons() {
  const char* const value = std::getenv("LOOM_POISON");
  return value != nullptr && std::string_view(value) == "1";
}

Accelerator& gpu() { return accelerator(Device::cuda); }

// `count` f32 from an address of the device on.
std::vector<float> read(void* address, int64_t count) {
  std::vector<float> out(static_cast<size_t>(count));
  gpu().copy(view_over(out.data(), f32, {count}), view_over(address, f32, {count}, Device::cuda));
  return out;
}
void write(void* address, int64_t byte, uint8_t value) {
  gpu().copy(view_over(static_cast<char*>(address) + byte, u8, {1}, Device::cuda), view_over(&value, u8, {1}));
}

}  // namespace

TEST_CASE("a GPU says what it is") {
  if (skipped()) return;
  const DeviceProperties gpu = device_properties(Device::cuda);
  CHECK_FALSE(gpu.name.empty());
  CHECK_FALSE(gpu.id.empty());
  CHECK(gpu.memory > 0);
  CHECK(gpu.multiprocessors > 0);
  CHECK(gpu.major >= 8);
  CHECK(gpu.clock > 1e8);
  CHECK(gpu.memory_bandwidth > 1e9);
  CHECK(gpu.peak_flops(bf16) >= gpu.peak_flops(f32));
  CHECK(cuda_description().find(gpu.name) != std::string::npos);
  CHECK(cuda_libraries().starts_with("CUDA runtime "));
  for (int i = 1; i < device_count(Device::cuda); ++i) CHECK(device_properties({Device::cuda, i}).id != gpu.id);
}

TEST_CASE("a GPU's memory is counted, its peak too, and what is cached can be given back") {
  if (skipped()) return;
  synchronize(Device::cuda);
  empty_cache(Device::cuda);
  const MemoryStats before = memory_stats(Device::cuda);
  reset_peak_memory_stats(Device::cuda);
  CHECK(memory_stats(Device::cuda).peak_allocated == before.allocated);
  {
    const Tensor x = zeros({1 << 18}, {f32, Device::cuda});
    CHECK(memory_stats(Device::cuda).allocated - before.allocated >= 1 << 20);
    CHECK(memory_stats(Device::cuda).allocations > before.allocations);
  }
  const MemoryStats after = memory_stats(Device::cuda);
  CHECK(after.allocated == before.allocated);
  CHECK(after.peak_allocated - before.allocated >= 1 << 20);
  CHECK(after.cached >= 1 << 20);
  synchronize(Device::cuda);
  empty_cache(Device::cuda);
  CHECK(memory_stats(Device::cuda).cached < after.cached);
}

TEST_CASE("more than a GPU has is an error that says what there is, and no more than that") {
  if (skipped()) return;
  const int64_t elements = int64_t{1} << 58;
  CHECK_THROWS_AS(empty({elements}, {f32, Device::cuda}), OutOfMemory);
  const std::string text = error_of([&] { empty({elements}, {f32, Device::cuda}); });
  CHECK(text.starts_with("out of memory on cuda:0: requested "));
  for (const char* const part : {" bytes, in use ", ", cached "}) CHECK(text.find(part) != std::string::npos);
  CHECK(ones({3}, {f32, Device::cuda}).to_vector<float>() == std::vector<float>{1, 1, 1});
}

TEST_CASE("LOOM_POISON: new memory and freed memory is not a number") {
  if (skipped() || !poisons()) return;
  void* const block = gpu().allocate(4000);
  for (const float x : read(block, 1000)) REQUIRE(std::isnan(x));
  for (int64_t i = 0; i < 4000; ++i) write(block, i, 0);
  CHECK(read(block, 1000) == std::vector<float>(1000, 0.0f));
  gpu().release(block);
  for (const float x : read(block, 1000)) REQUIRE(std::isnan(x));  // cached: still mapped
}

TEST_CASE("LOOM_POISON: what is written beside a block is told of when the device is waited for") {
  if (skipped() || !poisons()) return;
  for (const int64_t byte : {1001, 1002, 1256, -1, -256}) {
    CAPTURE(byte);
    void* const block = gpu().allocate(1001);
    write(block, 0, 1);
    write(block, 1000, 1);
    write(block, byte, 1);
    gpu().release(block);
    const std::string text = error_of([] { synchronize(Device::cuda); });
    CHECK(text.starts_with(str("memory of cuda:0: something wrote to byte ", byte, " of a block of 1001 bytes, the ")));
    CHECK(error_of([] { synchronize(Device::cuda); }).empty());
  }
}

TEST_CASE("LOOM_POISON: a block that another stream uses is looked at when that is over") {
  if (skipped() || !poisons()) return;
  const Stream side = stream(Device::cuda, Lane::copy);
  void* const block = gpu().allocate(64);
  {
    const StreamScope scope(side);
    side.wait(stream(Device::cuda, Lane::compute).record());
    write(block, 64, 1);
  }
  gpu().use_by(block, side.handle());
  gpu().release(block);
  CHECK(error_of([] {
          synchronize(Device::cuda);
        }).starts_with("memory of cuda:0: something wrote to byte 64 of a block"));
  int host = 0;
  CHECK_NOTHROW(gpu().use_by(&host, side.handle()));  // memory of others is left to them
}

TEST_CASE("LOOM_POISON: what is never released is told of at the end") {
  if (skipped() || !poisons()) return;
  CHECK(gpu().allocate(4096) != nullptr);
}
