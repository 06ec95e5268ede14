// Choosing one of several ways to do the same, by the clock.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>

namespace loom {

// The way, of [0, ways), that takes the least time: its index, or none where none works. time(i): how long way i takes
// now, in any unit, or none where it fails; it is not asked again then. Each is tried once before the clock counts, and
// then in turns, so that all of them meet the same disturbances; medians are compared. Ways that take about as long as
// the quickest (within 2 %) count as equal, and the first of them is chosen, so that noise changes little.
std::optional<size_t> quickest(size_t ways, const std::function<std::optional<double>(size_t)>& time);

}  // namespace loom
