// SPDX-License-Identifier: Apache-2.0
// Fabrics over the worlds of ranks.h, and what the tests of Fabric train.
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <loom/autograd/ops.h>
#include <loom/data/data_loader.h>
#include <loom/fabric/fabric.h>
#include <loom/nn/linear.h>
#include <loom/nn/optim/adam.h>
#include <loom/nn/optim/sgd.h>
#include <loom/tensor/create.h>

#include "../unit/temporary_folder.h"
#include "ranks.h"

namespace fabric_test {

using namespace loom;

// On ranks that somebody else owns; where new tensors are, whatever the machine has.
inline FabricOptions over(Communicator& ranks, FabricOptions options = {}) {
  if (options.accelerator == "auto") options.accelerator = default_device().kind == Device::cpu ? "cpu" : "cuda";
  options.plugins.communicator = std::shared_ptr<Communicator>(std::shared_ptr<void>(), &ranks);
  return options;
}

using Loop = std::function<void(Fabric&)>;

// f with a launched Fabric, in every world.
inline void for_each_fabric(const Loop& f, const FabricOptions& options = {}) {
  for_each_world([&](Communicator& ranks) {
    Fabric fabric(over(ranks, options));
    fabric.launch([&] { f(fabric); });
  });
}

// f on the first n ranks of a world, as a world of their own. Collective.
inline void on_first(Communicator& world, int n, const Loop& f, const FabricOptions& options = {}) {
  const auto part = world.split(world.rank() < n ? 0 : -1, world.rank());
  if (part) {
    Fabric fabric(over(*part, options));
    fabric.launch([&] { f(fabric); });
  }
  world.barrier().wait();
}

// f with a Fabric of one rank alone, and new tensors on its device: one of n ranks with GPUs has the first here.
inline void on_one(const Loop& f, const FabricOptions& options = {}) {
  const auto self = self_communicator();
  Fabric alone(over(*self, options));
  alone.launch([&] {
    Context here = context();
    here.default_device = alone.device();
    const ContextGuard guard(here);
    f(alone);
  });
}

// One folder for all ranks, gone with the last of them. Collective.
class SharedFolder {
 public:
  explicit SharedFolder(Communicator& ranks) : ranks_(ranks) {
    if (ranks.rank() == 0) own_ = std::make_unique<TemporaryFolder>();
    path_ = ranks.broadcast_bytes(own_ ? own_->path().string() : "", 0);
  }
  ~SharedFolder() { ranks_.barrier().wait(); }
  SharedFolder(const SharedFolder&) = delete;
  SharedFolder& operator=(const SharedFolder&) = delete;
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  Communicator& ranks_;
  std::unique_ptr<TemporaryFolder> own_;
  std::filesystem::path path_;
};

struct Net {
  nn::Linear first{6, 12}, second{12, 3};
  Tensor operator()(const Tensor& x) const { return second(tanh(first(x))); }
  Tensor hidden(const Tensor& x) const { return first(x); }
  LOOM_MEMBERS(first, second)
};

template <class M = Net>
M seeded(uint64_t seed = 3) {
  manual_seed(seed);
  return M();
}

// Rows [begin, begin + count) of an endless table.
inline Tensor rows(int64_t begin, int64_t count, int64_t width, DType dtype = f32) {
  std::vector<double> values;
  for (int64_t i = begin * width; i < (begin + count) * width; ++i)
    values.push_back(std::sin(static_cast<double>(i * i % 1009) + 0.5));
  return from_vector(values, {count, width}, dtype);
}

inline auto samples(int64_t count, DType dtype = f32) {
  return data::TensorDataset(rows(0, count, 6, dtype), rows(500, count, 3, dtype));
}

template <class M>
std::vector<Tensor> values(const M& net) {
  std::vector<Tensor> out;
  for (const NamedTensor& p : nn::state_dict(net)) out.push_back(p.tensor.detach().clone());
  return out;
}

inline std::vector<Tensor> values(const std::map<std::string, Tensor>& named) {
  std::vector<Tensor> out;
  out.reserve(named.size());
  for (const auto& [name, x] : named) out.push_back(x.clone());
  return out;
}

inline bool equal_all(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (a[i].dtype() != b[i].dtype() || !equal(a[i].to(Device::cpu), b[i].to(Device::cpu))) return false;
  return true;
}

inline double difference(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double out = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    out = std::max(out, abs(a[i].to(Device::cpu).to(f64) - b[i].to(Device::cpu).to(f64)).max().item<double>());
  return out;
}

// Whether all ranks hold the same, bit for bit. Collective.
inline bool alike(Fabric& fabric, const std::vector<Tensor>& tensors) {
  bool same = true;
  for (const Tensor& t : tensors) {
    const Tensor all = fabric.all_gather(t);
    for (int64_t r = 1; r < fabric.world_size(); ++r) same = same && equal(all[r], all[0]);
  }
  return same;
}

}  // namespace fabric_test
