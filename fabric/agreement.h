// What goes wrong on one rank is raised on all.
#pragma once

#include <functional>

#include <loom/distributed/communicator.h>

namespace loom {

// Runs f, which must not communicate, on every rank. Where it throws on any, all throw AgreedError: with the text that
// all ranks have in common, else with the first failing rank's, prefixed "rank N: ". Collective.
void together(Communicator& ranks, const std::function<void()>& f);

// The text of what f throws; empty: nothing.
std::string error_of(const std::function<void()>& f);

}  // namespace loom
