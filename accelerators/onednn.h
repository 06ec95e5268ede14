// Products and convolutions of the CPU by oneDNN, where a build has it (LOOM_ONEDNN). Each function says whether it did
// the work, by the contracts of accelerator.h; what it leaves alone is for the kernels in cpu/.
#pragma once

#include <string>

#include <loom/accelerators/accelerator.h>

namespace loom::onednn {

bool in_use();
std::string description();  // its version, or why it is not in use

bool gemm(const Gemm& args);
bool conv2d(const View& y, const View& x, const View& w, const View& bias, const ConvGeometry& g);
bool conv2d_grad_input(const View& dx, const View& dy, const View& w, const ConvGeometry& g);
bool conv2d_grad_weight(const View& dw, const View& dy, const View& x, const ConvGeometry& g);

}  // namespace loom::onednn
