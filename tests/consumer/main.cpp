// SPDX-License-Identifier: Apache-2.0
#include <loom/loom.h>

int main() {
  loom::Tensor a = loom::ones({2, 3});
  return loom::sum(a).item<float>() == 6 ? 0 : 1;
}
