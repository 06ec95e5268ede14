#include <loom/data/readers/idx.h>

#include <algorithm>
#include <array>
#include <bit>

#include <loom/data/readers/compressed_file.h>
#include <loom/tensor/create.h>

namespace loom::data {

namespace {

DType element_type(uint8_t code, const CompressedFile& file) {
  switch (code) {
    case 0x08:
      return u8;
    case 0x0C:
      return i32;
    case 0x0D:
      return f32;
    case 0x0E:
      return f64;
    default:
      break;
  }
  file.check(code != 0x09 && code != 0x0B, "element type ", code == 0x09 ? "i8" : "i16",
             " has no counterpart here; known are u8, i32, f32 and f64");
  fail(file.context(), "not an IDX file: its element type is ", code,
       ", expects 8 (u8), 12 (i32), 13 (f32) or 14 (f64)");
}

uint32_t big_endian(const uint8_t* bytes) {
  return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | uint32_t{bytes[3]};
}

Dims read_extents(CompressedFile& file, int rank) {
  file.check(rank <= Dims::max_rank, "has ", rank, " dimensions; a tensor has at most ", Dims::max_rank);
  Dims shape;
  for (int i = 0; i < rank; ++i) {
    std::array<uint8_t, 4> bytes{};
    file.check(file.read(bytes.data(), 4) == 4, "truncated: it ends within its header");
    shape.push_back(big_endian(bytes.data()));
  }
  return shape;
}

// Before memory is asked for: a damaged header may claim more than the file can hold.
void check_size(const CompressedFile& file, const Dims& shape, DType dtype) {
  uint64_t bytes = item_size(dtype);
  bool overflow = false;
  for (const int64_t extent : shape) overflow |= __builtin_mul_overflow(bytes, static_cast<uint64_t>(extent), &bytes);
  const uint64_t header = 4 + 4 * static_cast<uint64_t>(shape.size());
  file.check(!overflow && bytes <= file.most_bytes() - header, "truncated: a file of this size cannot hold ", shape,
             " of ", dtype);
}

template <size_t width>
void swap_bytes(uint8_t* data, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    std::reverse(data + i * static_cast<int64_t>(width), data + (i + 1) * static_cast<int64_t>(width));
}

}  // namespace

Tensor load_idx(const std::filesystem::path& path) {
  static_assert(std::endian::native == std::endian::little);
  CompressedFile file(path, "idx");
  std::array<uint8_t, 4> magic{};
  file.check(file.read(magic.data(), 4) == 4, "truncated: it has less than the 4 bytes of its magic number");
  file.check(magic[0] == 0 && magic[1] == 0, "not an IDX file: its magic number is ", big_endian(magic.data()),
             ", expects two bytes of 0, the element type and the number of dimensions");
  const DType dtype = element_type(magic[2], file);
  const Dims shape = read_extents(file, magic[3]);
  check_size(file, shape, dtype);

  Tensor out = empty(shape, {dtype, Device::cpu});
  const View view = out;
  const uint64_t got = file.read(view.data, view.bytes());
  file.check(got == view.bytes(), "truncated: ", got, " of the ", view.bytes(), " bytes of ", shape, " ", dtype);
  uint8_t extra = 0;
  file.check(file.read(&extra, 1) == 0, "something follows the ", view.bytes(), " bytes of ", shape, " ", dtype);
  if (item_size(dtype) == 4) swap_bytes<4>(view.as<uint8_t>(), view.numel());
  if (item_size(dtype) == 8) swap_bytes<8>(view.as<uint8_t>(), view.numel());
  return out;
}

}  // namespace loom::data
