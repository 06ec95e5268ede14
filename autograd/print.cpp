// Tensors as text: the elements, and where they stand in the graph.
#include <cctype>
#include <ostream>

#include <loom/autograd/graph.h>
#include <loom/tensor/print.h>

namespace loom {

namespace {

// "log_softmax" -> "LogSoftmaxBackward".
std::string node_name(std::string_view op) {
  std::string out;
  bool begins = true;
  for (const char c : op) {
    if (c != '_') out += begins ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c;
    begins = c == '_';
  }
  return out + "Backward";
}

}  // namespace

std::string to_string(const Tensor& tensor) {
  if (!tensor.defined() || !tensor.requires_grad()) return to_text(tensor, "");
  if (tensor.is_leaf()) return to_text(tensor, "requires_grad=True");
  return to_text(tensor, str("grad_fn=<", node_name(tensor.body().node->op->name), '>'));
}

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) { return out << to_string(tensor); }

}  // namespace loom
