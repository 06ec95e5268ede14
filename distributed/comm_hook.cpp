#include <loom/distributed/comm_hook.h>

#include <utility>

#include <loom/tensor/create.h>

namespace loom {

namespace {

constexpr int64_t alignment = 64;  // a cache line, and the widest vector

}  // namespace

int64_t HookScratch::bytes(int64_t elements, DType dtype) {
  const int64_t bytes = elements * static_cast<int64_t>(item_size(dtype));
  return (bytes + alignment - 1) / alignment * alignment;
}

Tensor HookScratch::take(const Dims& shape, DType dtype) {
  const int64_t begin = std::exchange(used_, used_ + bytes(shape.numel(), dtype));
  const int64_t has = memory_.defined() ? memory_.numel() : 0;
  check(used_ <= has, "communication hook: takes ", used_, " bytes of scratch memory, its scratch_bytes() asked for ",
        has);
  if (shape.numel() == 0) return empty(shape, {dtype, memory_.defined() ? memory_.device() : Device()});
  return from_blob(memory_.data<uint8_t>() + begin, shape, dtype, memory_.device(), [memory = memory_] {});
}

Exchange followed_by(Exchange exchange, std::function<void()> last) {
  if (!exchange.then)
    return {std::move(exchange.work), [last = std::move(last)] {
              last();
              return Exchange();
            }};
  return {std::move(exchange.work),
          [then = std::move(exchange.then), last = std::move(last)] { return followed_by(then(), last); }};
}

std::shared_ptr<void> CommHook::claim() {
  check(!keeps_state() || user_.expired(), "communication hook ", name(),
        ": it keeps state of the model that it serves already; make one for each model");
  const auto token = std::make_shared<char>();
  user_ = token;
  return token;
}

}  // namespace loom
