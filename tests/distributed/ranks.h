// SPDX-License-Identifier: Apache-2.0
// One test case, every kind of world. A failing check must not stop one rank between two collectives: use CHECK in
// ranks, REQUIRE only where all ranks see the same.
#pragma once

#include <doctest/doctest.h>

#include <functional>

#include <loom/distributed/mpi.h>
#include <loom/distributed/threads.h>

#include "../error_of.h"
#include "main.h"

using loom::testing::error_of;
using Ranks = std::function<void(loom::Communicator&)>;

// Inline mode: a collective returns when it is done, so that ranks must agree on the order across groups.
inline bool collectives_block = false;

// Under mpirun: on the world of processes, in both modes. Else on 1, 2 and 4 ranks as threads.
inline void for_each_world(const Ranks& f, const loom::MpiOptions& options = {}) {
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
