// Loss scaling's part of a checkpoint.
#include <algorithm>
#include <string>

#include <loom/fabric/loss_scaling.h>
#include <loom/tensor/create.h>
#include <loom/tensor/raw.h>

namespace loom {

namespace {

std::vector<int64_t> per_optimizer(const optim::State& saved, const std::string& name) {
  const auto list = saved.find(name);
  return list == saved.end() ? std::vector<int64_t>() : list->second.to_vector<int64_t>();
}

}  // namespace

// An overflow that was seen and not stepped with counts at the next look, though checkpoints hold no gradients.
optim::State LossScaling::state_dict() const {
  optim::State out = scale_.state_dict();
  std::vector<int64_t> finished, overflowed;
  for (const Held& h : held_) {
    if (h.optimizer.expired()) continue;
    finished.push_back(h.finished ? 1 : 0);
    overflowed.push_back(h.found.defined() && h.found.item<float>() != 0 ? 1 : 0);
  }
  const auto listed = [](const std::vector<int64_t>& values) {
    return from_vector(values, {static_cast<int64_t>(values.size())}, DType::i64);
  };
  if (std::ranges::count(overflowed, 1) != 0) out["overflowed"] = listed(overflowed);
  if (!found_.defined()) return out;
  out["found_inf"] = found_;
  out["finished"] = listed(finished);
  return out;
}

void LossScaling::check_state_dict(const optim::State& saved) const {
  scale_.check_state_dict(saved);
  check(saved.contains("found_inf") == saved.contains("finished"),
        "loss scaling: the state has one of 'found_inf' and 'finished', expected both or none");
  for (const auto& [name, value] : saved) {
    check(name != "found_inf" || value.numel() == 1, "loss scaling: 'found_inf' has shape ", value.shape(),
          ", expected one number");
    check((name != "finished" && name != "overflowed") || value.dim() == 1, "loss scaling: '", name, "' has shape ",
          value.shape(), ", expected one dimension");
  }
}

void LossScaling::load_state_dict(const optim::State& saved) {
  check_state_dict(saved);
  scale_.load_state_dict(saved);
  next_ = scale_;
  forget_findings();
  end_iteration();
  forget_expired();
  Tensor found = load_overflows(saved);
  if (const auto noted = saved.find("found_inf"); noted != saved.end() && !found.defined())
    found = raw::reshape(raw::cast(noted->second, DType::f32), {});
  if (!found.defined()) return;
  note(raw::to_device(found, in_use_.device()).clone());
  const std::vector<int64_t> finished = per_optimizer(saved, "finished");
  if (finished.empty() || finished.size() != held_.size()) return end_iteration();  // of other optimizers
  for (size_t i = 0; i < finished.size(); ++i) held_[i].finished = finished[i] != 0;
}

// What was found if it was by other optimizers than those that are here.
Tensor LossScaling::load_overflows(const optim::State& saved) {
  const std::vector<int64_t> overflowed = per_optimizer(saved, "overflowed");
  if (!overflowed.empty() && overflowed.size() != held_.size()) return full({}, 1, f32);
  for (size_t i = 0; i < overflowed.size(); ++i) {
    if (overflowed[i] == 0) continue;
    held_[i].found = full({}, 1, TensorOptions(f32, in_use_.device()));
    held_[i].dropped = are_zero(held_[i].optimizer.lock()->gradients());
  }
  return {};
}

}  // namespace loom
