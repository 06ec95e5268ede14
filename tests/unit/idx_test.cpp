// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <vector>

#include <zlib.h>

#include <loom/data/readers/idx.h>

#include "temporary_folder.h"

using namespace loom;
using loom::data::load_idx;

namespace {

std::string bytes(std::initializer_list<int> values) {
  std::string out;
  for (const int v : values) out.push_back(static_cast<char>(v));
  return out;
}

std::string gzipped(const std::string& text) {
  const TemporaryFolder folder;
  const auto path = folder / "x";
  const gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
  return contents_of(path);
}

std::string refusal(const std::string& contents) {
  const TemporaryFolder folder;
  const auto path = folder.write("x", contents);
  try {
    load_idx(path);
    return "";
  } catch (const Error& e) {
    const std::string text = e.what(), prefix = "idx: " + path.string() + ": ";
    CHECK(text.starts_with(prefix));
    return text.substr(prefix.size());
  }
}

const std::string matrix = bytes({0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255});

}  // namespace

TEST_CASE("idx: element types, plain and gzipped") {
  const TemporaryFolder folder;
  for (const std::string& contents : {matrix, gzipped(matrix)}) {
    const Tensor x = load_idx(folder.write("x", contents));
    CHECK(x.dtype() == u8);
    CHECK(x.shape() == Dims{2, 3});
    CHECK(x.to_vector<int>() == std::vector<int>{1, 2, 3, 4, 5, 255});
  }
  const Tensor i = load_idx(folder.write("i", bytes({0, 0, 12, 1, 0, 0, 0, 2, 0, 0, 1, 2, 255, 255, 255, 254})));
  CHECK(i.dtype() == i32);
  CHECK(i.to_vector<int>() == std::vector<int>{258, -2});
  const Tensor f = load_idx(folder.write("f", bytes({0, 0, 13, 1, 0, 0, 0, 1, 0x3f, 0xc0, 0, 0})));
  CHECK(f.dtype() == f32);
  CHECK(f.to_vector<float>() == std::vector<float>{1.5F});
  const Tensor d = load_idx(folder.write("d", bytes({0, 0, 14, 0, 0xbf, 0xf8, 0, 0, 0, 0, 0, 0})));
  CHECK(d.shape() == Dims{});
  CHECK(d.to_vector<double>() == std::vector<double>{-1.5});
  CHECK(load_idx(folder.write("e", bytes({0, 0, 8, 1, 0, 0, 0, 0}))).numel() == 0);
}

TEST_CASE("idx: damaged files") {
  CHECK(refusal("") == "truncated: it has less than the 4 bytes of its magic number");
  CHECK(refusal(matrix.substr(0, 10)) == "truncated: it ends within its header");
  CHECK(refusal(matrix.substr(0, 17)) == "truncated: a file of this size cannot hold [2, 3] of u8");
  CHECK(refusal(gzipped(matrix.substr(0, 17))) == "truncated: 5 of the 6 bytes of [2, 3] u8");
  CHECK(refusal(matrix + "x") == "something follows the 6 bytes of [2, 3] u8");
  CHECK(refusal(gzipped(matrix + "x")) == "something follows the 6 bytes of [2, 3] u8");
  CHECK(refusal(bytes({1, 0, 8, 2})).starts_with("not an IDX file: its magic number is 16779266"));
  CHECK(refusal(bytes({0, 0, 7, 2})).starts_with("not an IDX file: its element type is 7"));
  CHECK(refusal(bytes({0, 0, 11, 1, 0, 0, 0, 0})).starts_with("element type i16 has no counterpart"));
  CHECK(refusal(bytes({0, 0, 8, 9})) == "has 9 dimensions; a tensor has at most 8");
  CHECK(refusal(bytes({0, 0, 14, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}))
            .starts_with("truncated"));
  const TemporaryFolder folder;
  CHECK_THROWS_WITH_AS(load_idx("/nowhere/x"), "idx: /nowhere/x: cannot open: No such file or directory", Error);
  CHECK_THROWS_AS(load_idx(folder.path()), Error);
}

TEST_CASE("idx: damaged gzip files") {
  std::string long_text = bytes({0, 0, 8, 1, 0, 0, 0x40, 0});  // 16384 elements that do not compress to nothing
  uint32_t state = 1;
  for (int i = 0; i < 0x4000; ++i) long_text.push_back(static_cast<char>((state = state * 1664525 + 1013904223) >> 24));
  const std::string good = gzipped(long_text);
  CHECK(refusal(good).empty());
  CHECK(refusal(good.substr(0, good.size() / 2)) == "the gzip file is truncated");
  CHECK(refusal(good.substr(0, good.size() - 4)) == "the gzip file is truncated");
  std::string flipped = good;
  flipped[good.size() - 6] = static_cast<char>(flipped[good.size() - 6] ^ 1);  // its checksum
  CHECK(refusal(flipped).starts_with("cannot read: "));
}
