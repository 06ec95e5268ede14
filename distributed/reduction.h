// The one place where values of several ranks meet: every communicator sums through it, hence to the same bits.
#pragma once

#include <span>

#include <loom/distributed/collective.h>

namespace loom {

// outputs[...][i] = op over r, in rank order, of inputs[r][i], for `count` elements. f16 and bf16 are combined in f32
// and rounded once; integers wrap; NaN wins min and max. An output may be one of the inputs.
void reduce_in_rank_order(ReduceOp op, DType dtype, int64_t count, std::span<const void* const> inputs,
                          std::span<void* const> outputs);

}  // namespace loom
