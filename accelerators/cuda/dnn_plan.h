// Graphs as cuDNN's execution plans. The only files that see that library are this one, dnn_plan.cpp and dnn.cpp.
#pragma once

#include <cudnn.h>

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <loom/accelerators/cuda/graph.h>

namespace loom::cuda {

void check_dnn(cudnnStatus_t status, const char* what);

// A descriptor of the library, destroyed with its owner.
class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type);
  ~Descriptor() {
    if (raw_ != nullptr) (void)cudnnBackendDestroyDescriptor(raw_);
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
  void finalize() { check_dnn(cudnnBackendFinalize(raw_), "cudnnBackendFinalize"); }

 private:
  void put_raw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count, const void* values);
  cudnnBackendDescriptor_t raw_ = nullptr;
};

// The device that plans are for: that of a handle, or one described in JSON, which need not be there.
struct DnnTarget {
  cudnnHandle_t handle = nullptr;
  const Descriptor* described = nullptr;
};
Descriptor described_device(const std::string& json);

// Which kernels may be taken. None of them depends on timing.
struct DnnRules {
  bool tf32 = false;
  int64_t most_workspace = int64_t{1} << 30;
};

struct Plan {
  Descriptor plan{CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR};
  std::vector<Descriptor> parts;  // what it was made of
  int64_t workspace = 0;
  std::vector<int64_t> memory;                    // uids of the tensors that are given at each run
  std::vector<std::pair<int64_t, float>> numbers;  // uids and values of constants
};

// Null where the library has no kernel for the graph that the rules allow.
std::unique_ptr<Plan> make_plan(const Graph& graph, const DnnTarget& target, const DnnRules& rules);

}  // namespace loom::cuda
