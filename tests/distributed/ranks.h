// SPDX-License-Identifier: Apache-2.0
// One test case, every kind of world. A failing check must not stop one rank between two collectives: use CHECK in
// ranks, REQUIRE only where all ranks see the same.
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>
#include <functional>
#include <string_view>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cuda.h>
#include <loom/distributed/mpi.h>
#include <loom/distributed/nccl.h>
#include <loom/distributed/staged.h>
#include <loom/distributed/threads.h>
#include <loom/tensor/context.h>

#include "../error_of.h"
#include "main.h"

using loom::testing::error_of;
using Ranks = std::function<void(loom::Communicator&)>;

// Where the ranks' tensors are, and what carries them: LOOM_TEST_RANKS=nccl or staged for GPUs, each rank's own.
enum class Carrier : uint8_t { host, nccl, staged };
inline Carrier carrier() {
  const char* const text = std::getenv("LOOM_TEST_RANKS");
  const std::string_view name = text == nullptr ? "host" : text;
  loom::check(name == "host" || name == "nccl" || name == "staged", "LOOM_TEST_RANKS: ", name);
  return name == "nccl" ? Carrier::nccl : name == "staged" ? Carrier::staged : Carrier::host;
}
// NCCL adds up in an order of its own.
inline bool sums_in_rank_order() { return carrier() != Carrier::nccl; }

// A collective returns when it is done (inline mode), or all groups share a stream (NCCL): ranks must agree on the
// order across groups.
inline bool collectives_block = false;

// LOOM_TEST_ACCELERATOR=cuda: one rank alone, with new tensors and Fabrics on its GPU.
inline bool alone_on_gpu() {
  const char* const name = std::getenv("LOOM_TEST_ACCELERATOR");
  return name != nullptr && std::string_view(name) == "cuda";
}
inline bool on_gpu() { return alone_on_gpu() || carrier() != Carrier::host; }
inline void run_alone_on_gpu(const Ranks& f, const loom::MpiOptions& options) {
  if (loom::device_count(loom::Device::cuda) == 0) {
    MESSAGE("skipped: " << loom::cuda_description());
    return;
  }
  loom::Context here = loom::context();
  here.default_device = loom::Device::cuda;
  const loom::ContextGuard guard(here);
  f(*loom::self_communicator(options.communicator));
}

// f on these ranks, with new tensors on each one's device.
inline void on_devices(loom::Communicator& host, const Ranks& f) {
  if (carrier() == Carrier::host) return f(host);
  const loom::Device device(loom::Device::cuda, host.rank() % loom::device_count(loom::Device::cuda));
  loom::Context here = loom::context();
  here.default_device = device;
  const loom::ContextGuard guard(here);
  const std::shared_ptr<loom::Communicator> shared(std::shared_ptr<void>(), &host);
  if (carrier() == Carrier::nccl)
    f(*loom::nccl_communicator(shared, device, host.options()));
  else  // in several pieces
    f(*loom::staged_communicator(shared, device, {host.options(), 1 << 16}));
}

inline bool has_devices(int ranks) {
  if (carrier() == Carrier::host || loom::device_count(loom::Device::cuda) >= ranks) return true;
  MESSAGE("skipped: " << ranks << " ranks on GPUs of one process: " << loom::cuda_description());
  return false;
}

// Under mpirun: on the world of processes, in both modes. Else on 1, 2 and 4 ranks as threads.
inline void for_each_world(const Ranks& f, const loom::MpiOptions& options = {}) {
  const Ranks placed = [&](loom::Communicator& host) { on_devices(host, f); };
  if (alone_on_gpu()) return run_alone_on_gpu(f, options);
  if (under_mpirun()) {
    if (!has_devices(1)) return;
    for (const loom::MpiMode mode : {loom::MpiMode::threaded, loom::MpiMode::inline_mode}) {
      loom::MpiOptions chosen = options;
      chosen.mode = mode;
      collectives_block = mode == loom::MpiMode::inline_mode || carrier() == Carrier::nccl;
      const auto communicator = loom::mpi_communicator(chosen);
      placed(*communicator);
    }
  } else {
    collectives_block = carrier() == Carrier::nccl;
    for (const int n : {1, 2, 4})
      if (has_devices(n)) loom::run_threads(n, placed, options.communicator);
  }
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
