#include <loom/tensor/context.h>

namespace loom {

namespace detail {

thread_local constinit Context* current_context = nullptr;

Context& first_context() {
  static thread_local Context own;
  current_context = &own;
  return own;
}

}  // namespace detail

ContextGuard::ContextGuard(Context& context) : previous_(detail::current_context) {
  detail::current_context = &context;
}
ContextGuard::~ContextGuard() { detail::current_context = previous_; }

void manual_seed(uint64_t seed) { context().generator = {seed, 0}; }

}  // namespace loom
