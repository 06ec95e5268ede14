// Memory of collectives whose owner goes before they are done.
#pragma once

#include <loom/distributed/work.h>
#include <loom/tensor/tensor.h>

namespace loom {

// Keeps the tensor alive until the work on it is done, without waiting for it. Nothing to keep where it is done.
void keep_until_done(const Tensor& tensor, const Work& work);

}  // namespace loom
