#include <loom/tensor/dlpack.h>

#include <cstring>
#include <functional>
#include <memory>
#include <utility>

#include <loom/tensor/raw.h>

namespace loom {

namespace {

using dlpack::Code;
using dlpack::DeviceType;
using dlpack::DLTensor;

struct Format {
  DType dtype;
  Code code;
  uint8_t bits;
};
constexpr Format formats[] = {{f64, Code::floating, 64},       {f32, Code::floating, 32},  {f16, Code::floating, 16},
                              {bf16, Code::bfloat, 16},        {i64, Code::integer, 64},   {i32, Code::integer, 32},
                              {u8, Code::unsigned_integer, 8}, {boolean, Code::boolean, 8}};

// What an exported tensor keeps alive: the memory, and the arrays that its description points to.
template <class Managed>
struct Export {
  Tensor tensor;
  Dims shape, strides;
  Managed managed{};
};

template <class Managed>
Managed* export_tensor(const Tensor& x) {
  accelerator(x.device()).synchronize();
  auto out = std::make_unique<Export<Managed>>();
  out->tensor = raw::alias(x);
  out->shape = x.shape();
  out->strides = x.strides();
  DLTensor& t = out->managed.dl_tensor;
  t.data = x.numel() == 0 ? nullptr : View(x).data;
  const bool on_cpu = x.device().kind == Device::cpu;
  t.device = {static_cast<int32_t>(on_cpu ? DeviceType::cpu : DeviceType::cuda), on_cpu ? 0 : x.device().index};
  t.ndim = x.dim();
  for (const Format& f : formats)
    if (f.dtype == x.dtype()) t.dtype = {static_cast<uint8_t>(f.code), f.bits, 1};
  t.shape = out->shape.begin();
  t.strides = out->strides.begin();
  out->managed.manager_ctx = out.get();
  out->managed.deleter = [](Managed* self) { delete static_cast<Export<Managed>*>(self->manager_ctx); };
  return &out.release()->managed;
}

DType dtype_of_dlpack(const dlpack::DataType& given) {
  for (const Format& f : formats)
    if (static_cast<uint8_t>(f.code) == given.code && f.bits == given.bits && given.lanes == 1) return f.dtype;
  fail("from_dlpack: the type of code ", given.code, ", ", given.bits, " bits and ", given.lanes,
       " lanes has no counterpart here");
}

Device device_of_dlpack(const dlpack::Device& given) {
  switch (static_cast<DeviceType>(given.type)) {
    case DeviceType::cpu:
    case DeviceType::cuda_host:
      return Device::cpu;  // pinned memory is the host's
    case DeviceType::cuda:
    case DeviceType::cuda_managed:
      return {Device::cuda, given.id};
    default:
      fail("from_dlpack: the device of type ", given.type, " has no counterpart here, expects cpu (1) or cuda (2)");
  }
}

// Elements from the first to the last that the strides reach.
int64_t extent_in_elements(const Dims& shape, const Dims& strides) {
  int64_t last = 0;
  for (int i = 0; i < shape.size(); ++i) {
    check(strides[i] >= 0 || shape[i] <= 1, "from_dlpack: stride ", strides[i], " at dimension ", i, " is negative");
    if (shape[i] == 0) return 0;
    if (shape[i] > 1) last += (shape[i] - 1) * strides[i];
  }
  return last + 1;
}

Tensor copy_unaligned(const void* from, int64_t count, DType dtype, Device device) {
  check(device.kind == Device::cpu, "from_dlpack: memory on ", device, " is not aligned to ", dtype);
  Tensor out = empty(Dims{count}, {dtype, device});
  std::memcpy(View(out).data, from, View(out).bytes());
  return out;
}

Tensor import_tensor(const DLTensor& t, bool read_only, std::function<void()> release) {
  check(t.ndim >= 0 && t.ndim <= Dims::max_rank, "from_dlpack: has ", t.ndim, " dimensions; a tensor has at most ",
        Dims::max_rank);
  const DType dtype = dtype_of_dlpack(t.dtype);
  const Device device = device_of_dlpack(t.device);
  Dims shape;
  for (int i = 0; i < t.ndim; ++i) {
    check(t.shape[i] >= 0, "from_dlpack: extent ", t.shape[i], " at dimension ", i, " is negative");
    shape.push_back(t.shape[i]);
  }
  Dims strides = row_major_strides(shape);
  for (int i = 0; t.strides != nullptr && i < t.ndim; ++i)  // the stride of an extent of 1 or 0 means nothing
    if (shape[i] > 1) strides[i] = t.strides[i];
  const int64_t count = extent_in_elements(shape, strides);
  if (count == 0) return empty(shape, {dtype, device});
  check(t.data != nullptr, "from_dlpack: the data of a tensor of shape ", shape, " is null");

  auto* data = static_cast<std::byte*>(t.data) + t.byte_offset;
  if (reinterpret_cast<uintptr_t>(data) % item_size(dtype) != 0)
    return raw::as_strided(copy_unaligned(data, count, dtype, device), shape, strides, 0);
  const Tensor flat = from_blob(data, Dims{count}, dtype, device, std::move(release));
  Tensor shaped = raw::as_strided(flat, shape, strides, 0);
  if (!read_only) return shaped;
  Tensor copy = raw::clone(shaped);
  accelerator(device).synchronize();  // before the memory is given back
  return copy;
}

// The deleter runs when the last copy of what this returns is gone: with the storage, or on the way out of an error.
template <class Managed>
std::function<void()> keeper(Managed* managed) {
  std::shared_ptr<Managed> owner(managed, [](Managed* m) {
    if (m->deleter != nullptr) m->deleter(m);
  });
  return [owner = std::move(owner)]() mutable { owner.reset(); };
}

}  // namespace

dlpack::DLManagedTensorVersioned* to_dlpack(const Tensor& x) {
  auto* out = export_tensor<dlpack::DLManagedTensorVersioned>(x);
  out->version = dlpack::version;
  return out;
}

dlpack::DLManagedTensor* to_dlpack_legacy(const Tensor& x) { return export_tensor<dlpack::DLManagedTensor>(x); }

Tensor from_dlpack(dlpack::DLManagedTensorVersioned* managed) {
  check(managed != nullptr, "from_dlpack: the tensor is null");
  auto release = keeper(managed);
  const dlpack::Version given = managed->version;  // of another major version, nothing else may be touched
  check(given.major == dlpack::version.major, "from_dlpack: the tensor is of DLPack ", given.major, ".", given.minor,
        ", expects ", dlpack::version.major, ".x");
  return import_tensor(managed->dl_tensor, (managed->flags & dlpack::flag_read_only) != 0, std::move(release));
}

Tensor from_dlpack(dlpack::DLManagedTensor* managed) {
  check(managed != nullptr, "from_dlpack: the tensor is null");
  return import_tensor(managed->dl_tensor, false, keeper(managed));
}

}  // namespace loom
