#include <loom/autograd/engine.h>

#include <atomic>

#include <loom/autograd/ops.h>
#include <loom/autograd/run.h>
#include <loom/tensor/create.h>

namespace loom {

namespace autograd {

namespace {

Tensor seed_for(const char* what, const Tensor& output, const Tensor& seed, size_t i) {
  check(requires_grad(output), what, ": output ", i, " does not require grad; no input of it does, or it was computed ",
        "under NoGrad");
  if (!seed.defined()) {
    check(output.numel() == 1, what, ": output ", i, " has shape ", output.shape(),
          "; a gradient must be given for outputs of more than one element");
    return ones_like(output);
  }
  check(seed.shape() == output.shape(), what, ": the gradient of output ", i, " has shape ", seed.shape(),
        ", the output ", output.shape());
  return seed.dtype() == output.dtype() ? seed : seed.to(output.dtype());
}

void start(Run& run, const char* what, std::span<const Tensor> outputs, std::span<const Tensor> seeds) {
  check(seeds.empty() || seeds.size() == outputs.size(), what, ": ", seeds.size(), " gradients for ", outputs.size(),
        " outputs");
  run.become_current();
  for (size_t i = 0; i < outputs.size(); ++i)
    run.seed(outputs[i], seed_for(what, outputs[i], seeds.empty() ? Tensor() : seeds[i], i));
  run.execute();
}

}  // namespace
}  // namespace autograd

std::vector<Tensor> grad(const TensorList& outputs, const TensorList& wanted, const TensorList& seeds,
                         const GradOptions& options) {
  const std::span<const Tensor> inputs = wanted;
  std::vector<Tensor> result;
  std::vector<std::function<void()>> at_end;
  {
    autograd::Run run(options.retain_graph || options.create_graph, options.create_graph, false);
    for (size_t i = 0; i < inputs.size(); ++i) {
      check(autograd::requires_grad(inputs[i]), "grad: input ", i, " does not require grad");
      run.capture(inputs[i], i);
    }
    autograd::start(run, "grad", outputs, seeds);
    result = std::move(run.captured);
    at_end = std::move(run.at_end);
  }
  result.resize(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i)
    check(options.allow_unused || result[i].defined(), "grad: the outputs do not depend on input ", i,
          "; set allow_unused to get an undefined gradient instead");
  for (const auto& callback : at_end) callback();
  return result;
}

void backward(const TensorList& outputs, const TensorList& seeds, bool retain_graph, bool create_graph) {
  std::vector<std::function<void()>> at_end;
  {
    autograd::Run run(retain_graph || create_graph, create_graph, true);
    autograd::start(run, "backward", outputs, seeds);
    at_end = std::move(run.at_end);
  }
  for (const auto& callback : at_end) callback();
}

namespace {

const std::shared_ptr<autograd::Meta>& leaf_meta(const char* what, const Tensor& leaf) {
  const auto& meta = leaf.body().meta;
  check(meta && meta->requires_grad && leaf.is_leaf(), what, ": the tensor is not a leaf that requires grad");
  return meta;
}

std::atomic<uint64_t> next_hook{1};

}  // namespace

uint64_t on_grad_ready(const Tensor& leaf, std::function<void()> hook) {
  const uint64_t number = next_hook++;
  leaf_meta("on_grad_ready", leaf)->ready_hooks.emplace_back(number, std::move(hook));
  return number;
}

void remove_grad_ready_hook(const Tensor& leaf, uint64_t number) {
  const auto& meta = leaf.body().meta;
  if (meta) std::erase_if(meta->ready_hooks, [&](const auto& entry) { return entry.first == number; });
}

uint64_t before_grad_write(const Tensor& leaf, std::function<void()> hook) {
  const uint64_t number = next_hook++;
  leaf_meta("before_grad_write", leaf)->write_hooks.emplace_back(number, std::move(hook));
  return number;
}

void remove_grad_write_hook(const Tensor& leaf, uint64_t number) {
  const auto& meta = leaf.body().meta;
  if (meta) std::erase_if(meta->write_hooks, [&](const auto& entry) { return entry.first == number; });
}

void on_backward_end(std::function<void()> callback) {
  autograd::Run* const run = autograd::Run::current();
  check(run != nullptr, "on_backward_end: no backward is running on this thread");
  run->at_end.push_back(std::move(callback));
}

void set_grad_buffer(const Tensor& leaf, const Tensor& buffer) {
  const auto& meta = leaf_meta("set_grad_buffer", leaf);
  if (buffer.defined())
    check(buffer.shape() == leaf.shape() && buffer.dtype() == leaf.dtype(), "set_grad_buffer: the buffer is ",
          buffer.dtype(), buffer.shape(), ", the tensor ", leaf.dtype(), leaf.shape());
  meta->grad_buffer = buffer;
}

Tensor grad_buffer(const Tensor& leaf) {
  const auto& meta = leaf.body().meta;
  return meta ? meta->grad_buffer : Tensor();
}

uint64_t Tensor::register_hook(std::function<std::optional<Tensor>(const Tensor&)> hook) const {
  check(autograd::requires_grad(*this), "register_hook: the tensor does not require grad");
  const uint64_t number = next_hook++;
  if (const Body& b = body(); b.node)
    b.node->hooks.push_back({b.slot, number, std::move(hook)});
  else
    b.meta->hooks.emplace_back(number, std::move(hook));
  return number;
}

void Tensor::remove_hook(uint64_t number) const {
  const Body& b = body();
  if (b.meta) std::erase_if(b.meta->hooks, [&](const auto& entry) { return entry.first == number; });
  if (b.node) std::erase_if(b.node->hooks, [&](const auto& entry) { return entry.number == number; });
}

}  // namespace loom
