// How gradients are clipped.
#pragma once

#include <optional>

namespace loom {

struct ClipOptions {
  // Exactly one of both: clamp every element to [-clip_val, clip_val], or scale so that the norm is at most max_norm.
  std::optional<double> clip_val = {}, max_norm = {};
  double norm_type = 2;
  bool error_if_nonfinite = true;
};

}  // namespace loom
