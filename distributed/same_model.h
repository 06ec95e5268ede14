// Do all ranks hold the same model? What DDP and sharding rest on.
#pragma once

#include <span>

#include <loom/autograd/parameter.h>
#include <loom/distributed/communicator.h>

namespace loom {

// Collective. Throws on all ranks, with the same text, unless names, shapes, strides, dtypes and requires_grad of all
// parameters and buffers are the same everywhere; values may differ.
void check_same_model(Communicator& communicator, std::span<const NamedTensor> parameters,
                      std::span<const NamedTensor> buffers);

}  // namespace loom
