// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include <loom/tensor/dlpack.h>
#include <loom/tensor/raw.h>

using namespace loom;
using namespace loom::dlpack;
using loom::from_dlpack;

namespace {

// Another library's tensor of floats; counts how often it is given back.
struct Foreign {
  std::array<float, 8> values{0, 1, 2, 3, 4, 5, 6, 7};
  std::vector<int64_t> shape{2, 3}, strides;
  int released = 0;
  DLManagedTensorVersioned managed{};

  Foreign() {
    managed.version = dlpack::version;
    managed.manager_ctx = this;
    managed.deleter = [](DLManagedTensorVersioned* self) { ++static_cast<Foreign*>(self->manager_ctx)->released; };
    managed.dl_tensor = {values.data(), {1, 0}, 2, {2, 32, 1}, shape.data(), nullptr, 0};
  }
  std::string refusal() {
    try {
      from_dlpack(&managed);
      return "";
    } catch (const Error& e) {
      CHECK(released == 1);
      return e.what();
    }
  }
};

}  // namespace

TEST_CASE("dlpack: there and back is the same memory") {
  for (const DType t : {f64, f32, f16, bf16, i64, i32, u8, boolean}) {
    const Tensor x = raw::transpose(raw::cast(raw::reshape(arange(6), {2, 3}), t), 0, 1);
    const Tensor y = from_dlpack(to_dlpack(x)), z = from_dlpack(to_dlpack_legacy(x));
    CHECK(View(y).data == View(x).data);
    CHECK(View(z).data == View(x).data);
    CHECK(y.dtype() == t);
    CHECK(z.shape() == x.shape());
    CHECK(y.strides() == x.strides());
    CHECK(y.to_vector<double>() == x.to_vector<double>());
  }
  CHECK(from_dlpack(to_dlpack(empty({0, 3}))).shape() == Dims{0, 3});
  CHECK(from_dlpack(to_dlpack(full({}, 2))).item<double>() == 2);
}

TEST_CASE("dlpack: the exported tensor keeps its memory; the description is the ABI's") {
  DLManagedTensorVersioned* managed = nullptr;
  {
    const Tensor x = raw::slice(raw::cast(arange(10), f32), 0, 1, 9, 2);
    managed = to_dlpack(x);
  }
  CHECK(managed->version.major == 1);
  CHECK(managed->flags == 0);
  const DLTensor& t = managed->dl_tensor;
  CHECK(t.device.type == 1);
  CHECK(t.ndim == 1);
  CHECK(t.shape[0] == 4);
  CHECK(t.strides[0] == 2);
  CHECK(t.byte_offset == 0);
  CHECK(t.dtype.code == 2);
  CHECK(t.dtype.bits == 32);
  CHECK(t.dtype.lanes == 1);
  CHECK(static_cast<float*>(t.data)[2] == 3);
  managed->deleter(managed);
}

TEST_CASE("dlpack: imports without a copy, gives back once") {
  Foreign foreign;
  {
    const Tensor x = from_dlpack(&foreign.managed);
    const Tensor row = raw::select(x, 0, 1);
    CHECK(x.to_vector<float>() == std::vector<float>{0, 1, 2, 3, 4, 5});
    foreign.values[3] = 30;
    CHECK(row.to_vector<float>() == std::vector<float>{30, 4, 5});
    CHECK(foreign.released == 0);
  }
  CHECK(foreign.released == 1);
}

TEST_CASE("dlpack: offsets and strides") {
  Foreign foreign;
  foreign.managed.dl_tensor.byte_offset = 4;
  foreign.strides = {1, 3};
  foreign.managed.dl_tensor.strides = foreign.strides.data();
  foreign.shape = {2, 2};
  foreign.managed.dl_tensor.shape = foreign.shape.data();
  CHECK(from_dlpack(&foreign.managed).to_vector<float>() == std::vector<float>{1, 4, 2, 5});
  foreign.strides = {0, 1};
  CHECK(from_dlpack(&foreign.managed).to_vector<float>() == std::vector<float>{1, 2, 1, 2});
}

TEST_CASE("dlpack: memory that cannot be used as it is is copied") {
  Foreign read_only;
  read_only.managed.flags = flag_read_only;
  const Tensor x = from_dlpack(&read_only.managed);
  CHECK(read_only.released == 1);
  CHECK(View(x).data != read_only.values.data());
  CHECK(x.to_vector<float>() == std::vector<float>{0, 1, 2, 3, 4, 5});

  Foreign unaligned;
  std::memmove(reinterpret_cast<char*>(unaligned.values.data()) + 1, unaligned.values.data(), 24);
  unaligned.managed.dl_tensor.byte_offset = 1;
  CHECK(from_dlpack(&unaligned.managed).to_vector<float>() == std::vector<float>{0, 1, 2, 3, 4, 5});
  CHECK(unaligned.released == 1);
}

TEST_CASE("dlpack: what is refused is given back") {
  {
    Foreign foreign;
    foreign.managed.version = {2, 0};
    foreign.managed.dl_tensor.shape = nullptr;  // of another version, nothing may be touched
    CHECK(foreign.refusal() == "from_dlpack: the tensor is of DLPack 2.0, expects 1.x");
  }
  {
    Foreign foreign;
    foreign.managed.dl_tensor.dtype = {5, 64, 1};
    CHECK(foreign.refusal() == "from_dlpack: the type of code 5, 64 bits and 1 lanes has no counterpart here");
  }
  {
    Foreign foreign;
    foreign.managed.dl_tensor.device = {7, 0};
    CHECK(foreign.refusal().find("device of type 7") != std::string::npos);
  }
  {
    Foreign foreign;
    foreign.strides = {-3, 1};
    foreign.managed.dl_tensor.strides = foreign.strides.data();
    CHECK(foreign.refusal() == "from_dlpack: stride -3 at dimension 0 is negative");
  }
  {
    Foreign foreign;
    foreign.managed.dl_tensor.ndim = 9;
    CHECK(foreign.refusal().find("at most 8") != std::string::npos);
  }
  {
    Foreign foreign;
    foreign.managed.dl_tensor.data = nullptr;
    CHECK(foreign.refusal().find("is null") != std::string::npos);
  }
  CHECK_THROWS_AS(from_dlpack(static_cast<DLManagedTensor*>(nullptr)), Error);
}
