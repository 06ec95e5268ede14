// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <loom/tensor/npy.h>
#include <loom/tensor/raw.h>

#include "temporary_folder.h"

using namespace loom;

namespace {

// A file with this header text, padded as NumPy pads it.
std::string file_of(std::string header, const std::string& data, int major = 1) {
  const size_t start = major == 1 ? 10 : 12;
  header.resize((start + header.size() + 64) / 64 * 64 - start - 1, ' ');
  header += '\n';
  std::string out = "\x93NUMPY";
  out += static_cast<char>(major);
  out += '\0';
  for (size_t i = 0; i < start - 8; ++i) out += static_cast<char>(header.size() >> (8 * i));
  return out + header + data;
}

std::string literal(const std::string& descr, const std::string& shape, const std::string& fortran = "False") {
  return "{'descr': '" + descr + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }";
}

Tensor load(const std::string& bytes) {
  const TemporaryFolder folder;
  return load_npy(folder.write("x.npy", bytes));
}

std::string refusal(const std::string& bytes) {
  const TemporaryFolder folder;
  const auto path = folder.write("x.npy", bytes);
  try {
    load_npy(path);
    return "";
  } catch (const Error& e) {
    const std::string text = e.what(), prefix = "npy: " + path.string() + ": ";
    CHECK(text.starts_with(prefix));
    return text.substr(prefix.size());
  }
}

const std::string six("\0\1\2\3\4\5", 6);

}  // namespace

TEST_CASE("npy: versions, byte orders, memory orders") {
  for (const int version : {1, 2, 3}) {
    const Tensor x = load(file_of(literal("|u1", "(2, 3)"), six, version));
    CHECK(x.dtype() == u8);
    CHECK(x.shape() == Dims{2, 3});
    CHECK(x.to_vector<int>() == std::vector<int>{0, 1, 2, 3, 4, 5});
  }
  const Tensor columns = load(file_of(literal("|u1", "(2, 3)", "True"), six));
  CHECK(columns.is_contiguous());
  CHECK(columns.to_vector<int>() == std::vector<int>{0, 2, 4, 1, 3, 5});
  CHECK(load(file_of(literal(">i4", "(1,)"), std::string("\0\0\1\2", 4))).to_vector<int>() == std::vector<int>{258});
  CHECK(load(file_of(literal("=i4", "(1,)"), std::string("\2\1\0\0", 4))).to_vector<int>() == std::vector<int>{258});
  CHECK(load(file_of(literal("|b1", "(2,)"), std::string("\0\1", 2))).dtype() == boolean);
  CHECK(load(file_of(literal("<f8", "()"), std::string("\0\0\0\0\0\0\xf8\x3f", 8))).item<double>() == 1.5);
  CHECK(load(file_of(literal("<f4", "(0, 3)"), "")).shape() == Dims{0, 3});
  CHECK(load(file_of(R"({"shape": (6,), "fortran_order": False, "descr": "<u1"})", six)).shape() == Dims{6});
}

TEST_CASE("npy: refused files") {
  CHECK(refusal("").ends_with("not a .npy file"));
  CHECK(refusal("0123456789abcdef").ends_with("not a .npy file"));
  CHECK(refusal(file_of(literal("|u1", "(6,)"), six, 4)) == "is of version 4.0, expects 1.0, 2.0 or 3.0");
  CHECK(refusal(file_of(literal("|O", "(6,)"), six)) == "holds pickled Python objects, which are never loaded");
  CHECK(refusal(file_of(literal("<c8", "(6,)"), six)).starts_with("dtype '<c8' has no counterpart here"));
  for (const char* descr : {"<u2", "", "<", "f4", "<f4x", "<V2"})
    CHECK(refusal(file_of(literal(descr, "(6,)"), six)).find("has no counterpart") != std::string::npos);
  CHECK(refusal(file_of("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,)}", six)).find("structured") !=
        std::string::npos);
  CHECK(refusal(file_of(literal("|u1", "(5,)"), six)).ends_with("something follows it"));
  CHECK(refusal(file_of(literal("|u1", "(7,)"), six)).ends_with("it was truncated"));
  CHECK(refusal(file_of(literal("|u1", "(4294967296, 4294967296)"), six)).find("64 bits") != std::string::npos);
  CHECK(refusal(file_of(literal("|u1", "(1,1,1,1,1,1,1,1,6)"), six)) == "has 9 dimensions; a tensor has at most 8");
  CHECK(refusal(file_of(literal("|b1", "(6,)"), six)) == "element 2 is the byte 2, a b1 is 0 or 1");
  for (const char* shape : {"6", "(6)", "(-6,)", "(2 3)", "[6]", "(6.0,)", "(99999999999999999999,)", "(6,"})
    CHECK_MESSAGE(refusal(file_of(literal("|u1", shape), six)).starts_with("header, at byte"), shape);
  for (const char* header :
       {"", "{}", "{'descr': '|u1'}", "{'a': 1}", "{'descr': '|u1', 'descr': '|u1'}", "[]",
        "{'descr': '|u1, 'fortran_order': False, 'shape': (6,)}", "{'descr': '|u1', 'fortran_order': 0, 'shape': (6,)}",
        "{'descr': '|u1' 'fortran_order': False, 'shape': (6,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (6,)} x"})
    CHECK_MESSAGE(refusal(file_of(header, six)).starts_with("header, at byte"), header);
  CHECK(refusal(file_of(literal("|u1", "(6,)") + std::string(20000, ' '), six)).starts_with("the header has"));
}

TEST_CASE("npy: what is written is read back; the header is NumPy's") {
  const TemporaryFolder folder;
  const auto path = folder / "x.npy";
  for (const DType t : {f64, f32, f16, i64, i32, u8, boolean}) {
    const Tensor x = raw::cast(raw::reshape(arange(6), {2, 3}), t);
    save_npy(path, raw::transpose(x, 0, 1));
    const Tensor y = load_npy(path);
    CHECK(y.dtype() == t);
    CHECK(y.shape() == Dims{3, 2});
    CHECK(y.to_vector<double>() == raw::transpose(x, 0, 1).to_vector<double>());
  }
  save_npy(path, raw::cast(arange(2), bf16));
  CHECK(load_npy(path).dtype() == f32);
  save_npy(path, full({}, 3));
  CHECK(load_npy(path).shape() == Dims{});
  save_npy(path, empty({4, 0}));
  CHECK(load_npy(path).shape() == Dims{4, 0});
  save_npy(path, ones({3}, f32));
  const std::string expected = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }";
  const std::string bytes = contents_of(path);
  CHECK(bytes == std::string("\x93NUMPY\x01\x00v\x00", 10) + expected + std::string(118 - expected.size() - 1, ' ') +
                     "\n" + std::string("\0\0\x80\x3f\0\0\x80\x3f\0\0\x80\x3f", 12));
}
