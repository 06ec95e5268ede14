// Differentiation: grad() is the primitive, backward() the sugar that accumulates into leaves.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include <loom/tensor/tensor.h>

namespace loom {

struct GradOptions {
  bool retain_graph = false;  // keep what was saved, so that the graph can be differentiated again
  bool create_graph = false;  // record the differentiation itself (second order); implies retain_graph
  bool allow_unused = false;  // an input that the outputs do not depend on gives an undefined gradient, not an error
};

// d sum_i <outputs[i], seeds[i]> / d inputs. A seed has its output's shape; undefined or missing seeds are 1 for
// one-element outputs. Leaves' .grad stays as it is. Throws Error where no output requires grad, shapes do not fit, an
// input is not used (unless allowed), or the graph was freed by an earlier call without retain_graph.
std::vector<Tensor> grad(std::span<const Tensor> outputs, std::span<const Tensor> inputs,
                         std::span<const Tensor> seeds = {}, const GradOptions& options = {});
Tensor grad(const Tensor& output, const Tensor& input, const Tensor& seed = {}, const GradOptions& options = {});

// Adds d<outputs, seeds>/d leaf to every leaf's .grad. A leaf owns its gradient: it aliases no other tensor.
void backward(std::span<const Tensor> outputs, std::span<const Tensor> seeds = {}, bool retain_graph = false,
              bool create_graph = false);
inline void backward(const Tensor& loss) { loss.backward(); }

// Calls `hook` each time a backward has made this leaf's .grad final (all contributions of that backward added).
// Returns a number for remove_grad_ready_hook.
uint64_t on_grad_ready(const Tensor& leaf, std::function<void()> hook);
void remove_grad_ready_hook(const Tensor& leaf, uint64_t number);
// Calls `hook` each time before a backward writes to this leaf's .grad or to the buffer that it is to be in. Unlike a
// hook on the gradient it sees none, so that a rule may still write the gradient where it is to lie.
uint64_t before_grad_write(const Tensor& leaf, std::function<void()> hook);
void remove_grad_write_hook(const Tensor& leaf, uint64_t number);
// Calls `callback` once when the backward that is running on this thread has finished without error.
void on_backward_end(std::function<void()> callback);
// From now on a leaf's first gradient of a step is written into `buffer` (its shape and dtype) and .grad is that
// buffer. Undefined: back to its own memory.
void set_grad_buffer(const Tensor& leaf, const Tensor& buffer);
Tensor grad_buffer(const Tensor& leaf);  // undefined where there is none

}  // namespace loom
