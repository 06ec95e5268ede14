// What belongs to a rank rather than to the process: ranks may be threads. A thread that works for a rank (a data
// loader's worker, a recomputation) is handed the rank's context.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include <loom/accelerators/device.h>
#include <loom/accelerators/dtype.h>
#include <loom/accelerators/philox.h>

namespace loom {

// Random state: a seed and how many blocks have been drawn. Every draw takes the next blocks, so that a draw depends on
// the draws before it and on nothing else.
struct Generator {
  uint64_t seed = 5489;
  uint64_t offset = 0;
  const uint64_t* base = nullptr;  // Philox's, while a graph is captured: offset counts from the replay's
  // The state of a draw of `elements`, and moves on. `stream` 0 gives the same numbers on every rank.
  Philox draw(int64_t elements, uint64_t stream = 0) {
    const Philox state{seed, stream, offset, base};
    offset += static_cast<uint64_t>((elements + 1) / 2);  // f64 and normal use a block for two elements
    return state;
  }
  bool operator==(const Generator&) const = default;
};

class ParameterValues;  // autograd/parameter.h
class CastCache;        // autograd/autocast.cpp
class Fp8Layers;        // autograd/fp8.h
class GraphCapture;     // tensor/device_graph.h

struct Context {
  bool grad_mode = true;
  Generator generator;
  int data_rank = 0;                                        // dropout and the like draw from stream data_rank + 1
  DType default_dtype = DType::f32;                         // of new tensors
  Device default_device;                                    // of new tensors
  std::optional<Device> pinned_for;                         // who collates batches puts them where that device reads
  bool skip_init = false;                                   // modules leave their parameters uninitialised
  std::shared_ptr<const ParameterValues> parameter_values;  // functional_call: what parameters stand for
  bool autocast = false;                                    // ops cast their arguments (autograd/autocast.h)
  DType autocast_dtype = DType::bf16;                       // ... the low precision
  std::shared_ptr<CastCache> cast_cache;                    // ... what has been cast in the outermost region
  std::shared_ptr<Fp8Layers> fp8;                           // ... whose linear layers multiply in 8 bits
  GraphCapture* capture = nullptr;                          // what is recorded of this rank's work, if it is
};

namespace detail {
[[gnu::tls_model("initial-exec")]] extern thread_local constinit Context* current_context;
Context& first_context();  // this thread's own
}  // namespace detail

// The context of this thread's rank.
inline Context& context() { return detail::current_context ? *detail::current_context : detail::first_context(); }

// Makes `context` this thread's for a scope.
class ContextGuard {
 public:
  explicit ContextGuard(Context& context);
  ~ContextGuard();
  ContextGuard(const ContextGuard&) = delete;
  ContextGuard& operator=(const ContextGuard&) = delete;

 private:
  Context* previous_;
};

// Seeds this rank's generator and rewinds it.
void manual_seed(uint64_t seed);

}  // namespace loom
