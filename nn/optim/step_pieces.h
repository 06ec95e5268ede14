// How an optimizer's update reaches the accelerator: all pieces of a group on one device in one call.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include <loom/accelerators/accelerator.h>
#include <loom/nn/optim/optimizer.h>

namespace loom::optim {

inline Dense dense(const Tensor& x) {
  auto* const start = static_cast<std::byte*>(x.storage()->data());
  return {start ? start + x.storage_offset() * static_cast<int64_t>(item_size(x.dtype())) : nullptr, x.dtype()};
}

// fill(update, piece, state) adds an item's states and step; run(accelerator, pieces) makes the step.
template <class Items, class Fill, class Run>
void step_pieces(const Items& items, const Fill& fill, const Run& run) {
  std::vector<UpdatePiece> pieces;
  pieces.reserve(items.size());
  for (size_t begin = 0, end; begin < items.size(); begin = end) {
    const Device device = items[begin].piece.value.device();
    pieces.clear();
    for (end = begin; end < items.size() && items[end].piece.value.device() == device; ++end) {
      const auto& item = items[end];
      UpdatePiece& update = pieces.emplace_back();
      update.numel = item.piece.value.numel();
      update.value = dense(item.piece.value);
      update.grad = dense(item.piece.grad);
      if (item.master.defined()) update.master = dense(item.master);
      update.value_written = item.value_written;
      if (item.factor.defined()) update.factor = dense(item.factor);
      update.rounding = item.rounding;
      if (item.state->count.defined()) update.count = static_cast<const int64_t*>(dense(item.state->count).data);
      fill(update, item.piece, *item.state);
    }
    run(accelerator(device), pieces);
  }
}

}  // namespace loom::optim
