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
#include <loom/distributed/threads.h>
#include <loom/tensor/context.h>

#include "../error_of.h"
#include "main.h"

using loom::testing::error_of;
using Ranks = std::function<void(loom::Communicator&)>;

// Inline mode: a collective returns when it is done, so that ranks must agree on the order across groups.
inline bool collectives_block = false;

// LOOM_TEST_ACCELERATOR=cuda: one rank alone, with new tensors and Fabrics on its GPU.
inline bool on_gpu() {
  const char* const name = std::getenv("LOOM_TEST_ACCELERATOR");
  return name != nullptr && std::string_view(name) == "cuda";
}
inline void alone_on_gpu(const Ranks& f, const loom::MpiOptions& options) {
  if (loom::device_count(loom::Device::cuda) == 0) {
    MESSAGE("skipped: " << loom::cuda_description());
    return;
  }
  loom::Context here = loom::context();
  here.default_device = loom::Device::cuda;
  const loom::ContextGuard guard(here);
  f(*loom::self_communicator(options.communicator));
}

// Under mpirun: on the world of processes, in both modes. Else on 1, 2 and 4 ranks as threads.
inline void for_each_world(const Ranks& f, const loom::MpiOptions& options = {}) {
  if (on_gpu()) return alone_on_gpu(f, options);
  if (under_mpirun()) {
    for (const loom::MpiMode mode : {loom::MpiMode::threaded, loom::MpiMode::inline_mode}) {
      loom::MpiOptions chosen = options;
      chosen.mode = mode;
      collectives_block = mode == loom::MpiMode::inline_mode;
      const auto communicator = loom::mpi_communicator(chosen);
      f(*communicator);
    }
  } else {
    for (const int n : {1, 2, 4}) loom::run_threads(n, f, options.communicator);
  }
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
