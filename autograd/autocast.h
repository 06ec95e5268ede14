// Automatic casting: within a region each op runs in the dtype that its row of the op table asks for (torch.autocast).
//
//   { const Autocast region(bf16);  loss = cross_entropy(net(x), y); }
//   loss.backward();                                  // in the dtypes of the forward; needs no region
//
// low       f32 and 16-bit floating arguments are cast to the region's dtype: products, convolutions, attention
// f32       16-bit floating arguments are cast to f32: exp, norms, losses, sums
// promote   arguments of several floating dtypes are cast to the widest of them
// same      runs in what it gets
// unsafe    an error: what it computes has no place in 16 bits
// f64 and integral tensors are never cast. Gradients come back in the dtype of what was cast.
#pragma once

#include <array>
#include <memory>

#include <loom/accelerators/dtype.h>
#include <loom/tensor/tensor.h>

namespace loom {

struct Context;

// A region, for a scope and this thread's rank. Regions nest; enabled=false stops casting within one.
class Autocast {
 public:
  // low: f16 or bf16. Parameters are cast once a region: the outermost region keeps their casts, unless !cache.
  explicit Autocast(DType low, bool enabled = true, bool cache = true);
  ~Autocast();
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 protected:
  Autocast();  // stops casting

 private:
  Context& context_;
  bool enabled_, outermost_;
  DType dtype_;
};

// No casting in its scope: what composes an op of others, which has cast its arguments already.
class NoAutocast : public Autocast {
 public:
  NoAutocast() = default;
};

bool is_autocast_enabled();

}  // namespace loom
