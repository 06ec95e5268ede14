// Stands in for onednn/ in a build without oneDNN: all is left to the kernels in cpu/.
#include <loom/accelerators/onednn.h>

namespace loom {

bool onednn::in_use() { return false; }
std::string onednn::description() { return "built without oneDNN; configure with -DLOOM_ONEDNN=ON"; }

bool onednn::gemm(const Gemm&) { return false; }
bool onednn::conv2d(const View&, const View&, const View&, const View&, const ConvGeometry&) { return false; }
bool onednn::conv2d_grad_input(const View&, const View&, const View&, const ConvGeometry&) { return false; }
bool onednn::conv2d_grad_weight(const View&, const View&, const View&, const ConvGeometry&) { return false; }

}  // namespace loom
