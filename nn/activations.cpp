#include <loom/nn/activations.h>

#include <loom/nn/init.h>

namespace loom::nn {

PReLU::PReLU(int64_t num_parameters, double init) : weight(uninitialized({num_parameters}, TensorOptions())) {
  if (!context().skip_init) init::constant_(weight, init);
}

}  // namespace loom::nn
