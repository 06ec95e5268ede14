// Masks as cuDNN's fused kernels take them, which know neither booleans nor rows that may attend to nothing.
#pragma once

#include <loom/accelerators/cuda/device.h>
#include <loom/accelerators/view.h>

namespace loom::cuda {

// bias [batch, heads, T, S] of f32 = what the mask adds to scores: itself (f32), or 0 where a boolean one is true and
// else a number so far below all scores that weights there are 0. Rows that are hidden as a whole stay finite in it,
// and what lies below that number is raised to it, but for -infinity. Columns are adjacent; what is left of the steps
// from row to row becomes 0.
void write_bias(Gpu& gpu, const View& bias, const View& mask);

// What a mask promises of rows of y [batch, heads, T, V] and lse [batch, heads, T] (dense) that write_bias has hidden
// as a whole: 0 and +infinity of a boolean mask; NaN where no sum of weights is finite, of one that is added.
void mend_hidden_rows(Gpu& gpu, const View& y, const View& lse, bool boolean);

}  // namespace loom::cuda
