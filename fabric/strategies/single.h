// One rank: nothing to synchronise.
#pragma once

#include <loom/fabric/strategy.h>

namespace loom {

class SingleStrategy final : public Strategy {
 public:
  std::string_view name() const override { return "single"; }
  std::unique_ptr<ModuleSync> setup_module(Communicator&, std::vector<NamedTensor>, std::vector<NamedTensor>) override {
    return std::make_unique<ModuleSync>();
  }
};

}  // namespace loom
