// DLPack: tensors handed between libraries of one process without a copy (https://dmlc.github.io/dlpack). The structs
// are declared here, as the ABI wants them: distributions ship old versions of the header.
#pragma once

#include <cstddef>
#include <cstdint>

#include <loom/tensor/tensor.h>

namespace loom {

namespace dlpack {

struct Version {
  uint32_t major, minor;
};
inline constexpr Version version{1, 0};

enum class DeviceType : int32_t { cpu = 1, cuda = 2, cuda_host = 3, cuda_managed = 13 };
struct Device {
  int32_t type;
  int32_t id;
};

enum class Code : uint8_t { integer = 0, unsigned_integer = 1, floating = 2, bfloat = 4, boolean = 6 };
struct DataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct DLTensor {
  void* data;  // null for a tensor without elements
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; null: row-major
  uint64_t byte_offset;
};

// Before version 1.0.
struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor* self);
};

inline constexpr uint64_t flag_read_only = 1, flag_is_copied = 2, flag_subbyte_padded = 4;

struct DLManagedTensorVersioned {
  Version version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned* self);
  uint64_t flags;
  DLTensor dl_tensor;
};

static_assert(sizeof(void*) == 8 && sizeof(DLTensor) == 48 && offsetof(DLTensor, device) == 8);
static_assert(offsetof(DLTensor, ndim) == 16 && offsetof(DLTensor, dtype) == 20 && offsetof(DLTensor, shape) == 24);
static_assert(offsetof(DLTensor, strides) == 32 && offsetof(DLTensor, byte_offset) == 40);
static_assert(sizeof(DLManagedTensor) == 64 && offsetof(DLManagedTensor, deleter) == 56);
static_assert(sizeof(DLManagedTensorVersioned) == 80 && offsetof(DLManagedTensorVersioned, flags) == 24);
static_assert(offsetof(DLManagedTensorVersioned, dl_tensor) == 32);

}  // namespace dlpack

// The same memory for another library; who gets it calls its deleter, once. No gradient goes along. Work queued on the
// tensor's device is waited for.
dlpack::DLManagedTensorVersioned* to_dlpack(const Tensor& x);
dlpack::DLManagedTensor* to_dlpack_legacy(const Tensor& x);

// A tensor over another library's memory, which is given back (its deleter called) when the last view is gone, or at
// once when this throws. Copied only where Loom cannot use the memory as it is: read-only or not aligned to its dtype.
Tensor from_dlpack(dlpack::DLManagedTensorVersioned* managed);
Tensor from_dlpack(dlpack::DLManagedTensor* managed);

}  // namespace loom
