// The thread that looks after all NCCL groups of the process: what takes too long, and errors that come later.
#pragma once

#include <memory>
#include <string>

#include <loom/distributed/nccl/group.h>

namespace loom::nccl {

// From its beginning to its end a group is watched; the thread lives while there are any.
void watch_over(const std::shared_ptr<Group>& group);
void forget(const Group* group);

// Ends all groups of the family that this process has.
void fail_family(const std::string& family, const std::string& error) noexcept;

}  // namespace loom::nccl
