// Memory of collectives whose owner goes before they are done.
#pragma once

#include <any>

#include <loom/distributed/work.h>

namespace loom {

// Keeps what owns the memory (a tensor, say) alive until the work on it is done, without waiting for it. Nothing to
// keep where it is done.
void keep_until_done(std::any owner, const Work& work);

}  // namespace loom
