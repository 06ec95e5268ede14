#include <loom/fabric/gradient_pieces.h>

#include <algorithm>

namespace loom {

FusedKernels* kernels_for(const std::vector<Tensor>& gradients) {
  if (gradients.empty()) return nullptr;
  const Device device = gradients[0].device();
  const bool alike = std::ranges::all_of(
      gradients, [&](const Tensor& g) { return g.device() == device && g.is_contiguous() && is_floating(g.dtype()); });
  return alike ? accelerator(device).fused() : nullptr;
}

std::vector<UpdatePiece> pieces_of(const std::vector<Tensor>& gradients) {
  std::vector<UpdatePiece> pieces(gradients.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    pieces[i].numel = gradients[i].numel();
    pieces[i].grad = {View(gradients[i]).data, gradients[i].dtype()};
  }
  return pieces;
}

}  // namespace loom
