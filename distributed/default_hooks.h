// Hooks that average gradients as they are, or in fewer bits.
#pragma once

#include <memory>

#include <loom/distributed/comm_hook.h>

namespace loom {

// The mean, as the communicator computes it: added up in rank order, then divided. What DDP does without a hook.
std::shared_ptr<CommHook> allreduce_hook();

// Gradients travel as f16 or bf16 where that is less than they have. The sum and its division by the number of ranks
// are f32 (Communicator), so that the sum cannot overflow; a rank's gradient beyond 65504 becomes infinite in f16.
std::shared_ptr<CommHook> fp16_compress_hook();
std::shared_ptr<CommHook> bf16_compress_hook();

// The hook sees the gradients as f16 or bf16, and what it leaves is converted back.
std::shared_ptr<CommHook> fp16_compress_wrapper(std::shared_ptr<CommHook> hook);
std::shared_ptr<CommHook> bf16_compress_wrapper(std::shared_ptr<CommHook> hook);

}  // namespace loom
