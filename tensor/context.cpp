#include <loom/tensor/context.h>

namespace loom {

namespace {
thread_local Context own;
thread_local Context* current = nullptr;
}  // namespace

Context& context() { return current ? *current : own; }

ContextGuard::ContextGuard(Context& context) : previous_(current) { current = &context; }
ContextGuard::~ContextGuard() { current = previous_; }

void manual_seed(uint64_t seed) { context().generator = {seed, 0}; }

}  // namespace loom
