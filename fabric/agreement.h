// What goes wrong on one rank is raised on all.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include <loom/distributed/communicator.h>

namespace loom {

// Runs f on every rank. Where it throws on any, all throw AgreedError: with the text that all ranks have in common,
// else with the first failing rank's, prefixed "rank N: ". Collective; f itself may communicate only where no rank
// alone can fail before.
void together(Communicator& ranks, const std::function<void()>& f);

// Where the ranks' texts differ, all throw AgreedError "what: rank 0 has A, rank 1 B" with the first rank that differs
// from rank 0. Collective.
void check_same_on_ranks(Communicator& ranks, std::string_view what, const std::string& text);

// The text of what f throws; empty: nothing.
std::string error_of(const std::function<void()>& f);

}  // namespace loom
