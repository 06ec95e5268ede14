// Regions whose forward is run again at backward (checkpoint.h): what the graph and the modules must know of them.
#pragma once

#include <memory>

#include <loom/tensor/tensor.h>

namespace loom::autograd {

struct RegionScope;  // a region's forward or its recomputation, under way on this thread
struct Recomputed;   // a tensor that a region's ops saved, known by its number only until backward wants it

[[gnu::tls_model("initial-exec")]] extern thread_local constinit RegionScope* region_scope;

// Whether a region is being run again: what it computed is not new, so side effects (running statistics) stay away.
bool recomputing();

bool replayed_flag(bool flag);
// A flag's value when this region first ran; outside of regions, its value.
inline bool as_at_forward(bool flag) { return region_scope ? replayed_flag(flag) : flag; }

// Tells the running region that an op saves x. What it returns stands for x; null: x is to be kept itself.
std::shared_ptr<Recomputed> note_saved(const Tensor& x);
const Tensor& recomputed_value(Recomputed& saved);

}  // namespace loom::autograd
