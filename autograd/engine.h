// Differentiation: grad() is the primitive, backward() the sugar that accumulates into leaves.
#pragma once

#include <concepts>
#include <functional>
#include <initializer_list>
#include <span>
#include <vector>

#include <loom/tensor/tensor.h>

namespace loom {

struct GradOptions {
  bool retain_graph = false;  // keep what was saved, so that the graph can be differentiated again
  bool create_graph = false;  // record the differentiation itself (second order); implies retain_graph
  bool allow_unused = false;  // an input that the outputs do not depend on gives an undefined gradient, not an error
};

// Tensors as an argument: one, several in braces ({y} are several as well), or a vector, array or span of them.
class TensorList {
 public:
  TensorList() = default;
  TensorList(const Tensor& one) : view_(&one, 1) {}                                              // NOLINT
  TensorList(std::initializer_list<Tensor> several) : view_(several.begin(), several.size()) {}  // NOLINT
  template <class Range>
    requires std::convertible_to<const Range&, std::span<const Tensor>>
  TensorList(const Range& range) : view_(range) {}            // NOLINT
  operator std::span<const Tensor>() const { return view_; }  // NOLINT

 private:
  std::span<const Tensor> view_;
};

// d sum_i <outputs[i], seeds[i]> / d inputs. A seed has its output's shape; undefined or missing seeds are 1 for
// one-element outputs. Leaves' .grad stays as it is. Throws Error where no output requires grad, shapes do not fit, an
// input is not used (unless allowed), or the graph was freed by an earlier call without retain_graph.
std::vector<Tensor> grad(const TensorList& outputs, const TensorList& inputs, const TensorList& seeds = {},
                         const GradOptions& options = {});
// Of one tensor by one tensor: a tensor. A template, so that braces mean the function above: grad(y, {x})[0] is the
// gradient, as in PyTorch; grad(y, x)[0] is its first row.
template <std::derived_from<Tensor> Output, std::derived_from<Tensor> Input>
Tensor grad(const Output& output, const Input& input, const Tensor& seed = {}, const GradOptions& options = {}) {
  return grad(TensorList(output), TensorList(input), TensorList(seed), options)[0];
}

// Adds d<outputs, seeds>/d leaf to every leaf's .grad. A leaf owns its gradient: it aliases no other tensor.
void backward(const TensorList& outputs, const TensorList& seeds = {}, bool retain_graph = false,
              bool create_graph = false);

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
