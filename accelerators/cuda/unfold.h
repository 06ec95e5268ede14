// Convolutions as matrix products: images unfolded into columns, and columns folded back (im2col).
#pragma once

#include <loom/accelerators/cpu/conv.h>
#include <loom/accelerators/cuda/device.h>

namespace loom::cuda {

// What a column holds, over all images of x: [images, channels, KH, KW, OH, OW], or with the images inside:
// [channels, KH, KW, images, OH, OW].
enum class Columns : uint8_t { by_image, images_inside };

// columns (dense, of x's dtype) from x [images, channels, H, W] of any strides.
void unfold(Gpu& gpu, void* columns, Columns order, const View& x, const cpu::ConvShape& s);
// x, any floating dtype and strides: each element the sum of what was unfolded from it, of columns by image in the type
// that x's sums are in.
void fold(Gpu& gpu, const View& x, const void* columns, const cpu::ConvShape& s);

}  // namespace loom::cuda
