// Graphs in cuDNN's own terms. The only files that see that library are dnn*.h and dnn*.cpp.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include <loom/accelerators/cuda/dnn_functions.h>
#include <loom/accelerators/cuda/graph.h>

namespace loom::cuda {

void check_dnn(cudnnStatus_t status, const char* what);

// A descriptor of the library, destroyed with its owner.
class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type);
  ~Descriptor() {
    if (raw_ != nullptr) (void)dnn().destroy_descriptor(raw_);
  }
  Descriptor(Descriptor&& other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(raw_, other.raw_);
    return *this;
  }
  cudnnBackendDescriptor_t get() const { return raw_; }

  template <class T>
  void put(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::span<const T> values) {
    put_raw(name, type, static_cast<int64_t>(values.size()), values.data());
  }
  template <class T>
  void put(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const T& value) {
    put_raw(name, type, 1, &value);
  }
  void put(cudnnBackendAttributeName_t name, const Descriptor& value) {
    put(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, value.get());
  }
  void finalize() { check_dnn(dnn().finalize(raw_), "cudnnBackendFinalize"); }

 private:
  void put_raw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count, const void* values);
  cudnnBackendDescriptor_t raw_ = nullptr;
};

// What a tensor of a graph is called.
inline int64_t uid_of(size_t tensor) { return static_cast<int64_t>(tensor) + 1; }

// The graph, to be finalized; what it is made of is added to `parts`.
Descriptor operation_graph(const Graph& graph, std::vector<Descriptor>& parts);

}  // namespace loom::cuda
