// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <csignal>
#include <cstring>
#include <utility>

#include <sys/resource.h>
#include <unistd.h>

#include <loom/accelerators/atomic_file.h>
#include <loom/tensor/raw.h>
#include <loom/tensor/safetensors.h>

#include "temporary_folder.h"

using namespace loom;

namespace {

// A file with this header text and this many bytes of zeros after it.
std::string file_of(const std::string& header, size_t data_bytes) {
  uint64_t length = header.size();
  std::string out(reinterpret_cast<const char*>(&length), 8);
  return out + header + std::string(data_bytes, '\0');
}

std::string one(const std::string& entry) { return "{\"t\":" + entry + "}"; }

// The error of loading these bytes, without "safetensors: FILE: "; "" when they load.
std::string refusal(const std::string& bytes) {
  const TemporaryFolder folder;
  const auto path = folder.write("x.safetensors", bytes);
  try {
    load_safetensors(path);
    return "";
  } catch (const Error& e) {
    const std::string prefix = "safetensors: " + path.string() + ": ";
    CHECK(std::string(e.what()).starts_with(prefix));
    return std::string(e.what()).substr(prefix.size());
  }
}

bool ends_with_condition(const std::string& bytes, const std::string& condition) {
  const std::string text = refusal(bytes);
  INFO(text);
  return text.ends_with("(" + condition + ")");
}

// Writing past this many bytes of a file fails as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    getrlimit(RLIMIT_FSIZE, &old_);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, old_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit old_{};
  void (*handler_)(int) = nullptr;
};

}  // namespace

TEST_CASE("safetensors: golden files of the reference") {
  const TemporaryFolder folder;
  const auto load = [&](const std::string& bytes) { return load_safetensors(folder.write("golden", bytes)); };

  const std::string two = std::string("<\0\0\0\0\0\0\0", 8) +
                          R"({"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]}})" + std::string(16, '\0');
  const auto matrix = load(two).tensors.at("test");
  CHECK(matrix.dtype() == i32);
  CHECK(matrix.shape() == Dims{2, 2});
  CHECK(matrix.to_vector<int>() == std::vector<int>(4, 0));

  const std::string scalar = std::string("8\0\0\0\0\0\0\0", 8) +
                             R"({"test":{"dtype":"I32","shape":[],"data_offsets":[0,4]}})" + std::string(4, '\0');
  CHECK(load(scalar).tensors.at("test").shape() == Dims{});

  CHECK(load(file_of("{}\r \t\n", 0)).tensors.empty());
  CHECK(load(file_of("\t\n{}\r ", 0)).tensors.empty());
  CHECK(load(file_of(R"({"t":{"dtype":"I32","shape":[2,0],"data_offsets":[0, 0]}})", 0)).tensors.at("t").shape() ==
        Dims{2, 0});
  CHECK(load(file_of(R"({"__metadata__":{"format":"pt"}})", 0)).metadata.at("format") == "pt");
}

TEST_CASE("safetensors: damaged lengths") {
  CHECK(ends_with_condition("", "HeaderTooSmall"));
  CHECK(ends_with_condition("1234567", "HeaderTooSmall"));
  CHECK(ends_with_condition(std::string(8, '\xff'), "HeaderTooLarge"));
  CHECK(ends_with_condition(std::string("\x01\xe1\xf5\x05\0\0\0\0", 8), "HeaderTooLarge"));       // 100,000,001
  CHECK(ends_with_condition(std::string("\x00\xe1\xf5\x05\0\0\0\0", 8), "InvalidHeaderLength"));  // 100,000,000
  CHECK(ends_with_condition(std::string("\x03\0\0\0\0\0\0\0{}", 10), "InvalidHeaderLength"));
  const std::string good = file_of(one(R"({"dtype":"I32","shape":[2,2],"data_offsets":[0,16]})"), 16);
  CHECK(refusal(good).empty());
  CHECK(ends_with_condition(good + std::string(34, 'x'), "MetadataIncompleteBuffer"));
  CHECK(ends_with_condition(good.substr(0, good.size() - 2), "MetadataIncompleteBuffer"));
  CHECK(ends_with_condition(file_of("{}", 1), "MetadataIncompleteBuffer"));
}

TEST_CASE("safetensors: headers that are not JSON objects") {
  CHECK(ends_with_condition(file_of("{\"\xff\":1}", 0), "InvalidHeader"));
  CHECK(ends_with_condition(file_of("{\"\xed\xa0\x80\":1}", 0), "InvalidHeader"));  // a surrogate
  for (const char* text : {"", "   ", "[]", "1", "null", "{", "{} {}", "{]", "{\"a\":}", "\xef\xbb\xbf{}"})
    CHECK(ends_with_condition(file_of(text, 0), "InvalidHeaderDeserialization"));
  CHECK(ends_with_condition(file_of(std::string("{}\0{}", 5), 0), "InvalidHeaderDeserialization"));
  CHECK(ends_with_condition(file_of(std::string(200000, '['), 0), "InvalidHeaderDeserialization"));
  CHECK(ends_with_condition(file_of("{\"t\":" + std::string(200000, '['), 0), "InvalidHeaderDeserialization"));
}

TEST_CASE("safetensors: entries of the wrong form") {
  for (const char* entry : {"1",
                            "null",
                            "\"x\"",
                            "[]",
                            "{}",
                            R"({"shape":[],"data_offsets":[0,4]})",
                            R"({"dtype":"I32","data_offsets":[0,4]})",
                            R"({"dtype":"I32","shape":[]})",
                            R"({"dtype":3,"shape":[],"data_offsets":[0,4]})",
                            R"({"dtype":["I32"],"shape":[],"data_offsets":[0,4]})",
                            R"({"dtype":"I33","shape":[],"data_offsets":[0,4]})",
                            R"({"dtype":"i32","shape":[],"data_offsets":[0,4]})",
                            R"({"dtype":"I32","shape":4,"data_offsets":[0,4]})",
                            R"({"dtype":"I32","shape":[-1],"data_offsets":[0,4]})",
                            R"({"dtype":"I32","shape":[1.0],"data_offsets":[0,4]})",
                            R"({"dtype":"I32","shape":["1"],"data_offsets":[0,4]})",
                            R"({"dtype":"I32","shape":[18446744073709551616],"data_offsets":[0,4]})",
                            R"({"dtype":"I32","shape":[[1]],"data_offsets":[0,4]})",
                            R"({"dtype":"I32","shape":[true],"data_offsets":[0,4]})",
                            R"({"dtype":"I32","shape":[],"data_offsets":[0]})",
                            R"({"dtype":"I32","shape":[],"data_offsets":[0,4,4]})",
                            R"({"dtype":"I32","shape":[],"data_offsets":[0,-4]})",
                            R"({"dtype":"I32","shape":[],"data_offsets":[]})",
                            R"({"dtype":"I32","dtype":"I32","shape":[],"data_offsets":[0,4]})",
                            R"({"dtype":"I32","shape":[],"shape":[],"data_offsets":[0,4]})",
                            R"({"dtype":"I32","shape":[],"data_offsets":[0,4],"strides":[1]})"})
    CHECK_MESSAGE(ends_with_condition(file_of(one(entry), 4), "InvalidHeaderDeserialization"), entry);
  CHECK(ends_with_condition(file_of(R"({"__metadata__":{"a":1}})", 0), "InvalidHeaderDeserialization"));
  CHECK(ends_with_condition(file_of(R"({"__metadata__":null})", 0), "InvalidHeaderDeserialization"));
  CHECK(ends_with_condition(file_of(R"({"__metadata__":{"a":{}}})", 0), "InvalidHeaderDeserialization"));
  CHECK(ends_with_condition(file_of(R"({"__metadata__":{"a":"1","a":"2"}})", 0), "InvalidHeaderDeserialization"));
  CHECK(ends_with_condition(file_of(R"({"__metadata__":{},"__metadata__":{}})", 0), "InvalidHeaderDeserialization"));
  const std::string entry = R"({"dtype":"I32","shape":[1],"data_offsets":[0,4]})";
  CHECK(refusal(file_of("{\"t\":" + entry + ",\"t\":" + entry + "}", 4)) ==
        "header, \"t\": the key appears twice (InvalidHeaderDeserialization)");
  std::string deep = "[1";
  for (int i = 0; i < 64; ++i) deep += ",1";
  CHECK(ends_with_condition(file_of(one(R"({"dtype":"I32","shape":)" + deep + R"(],"data_offsets":[0,4]})"), 4),
                            "InvalidHeaderDeserialization"));
}

TEST_CASE("safetensors: layouts with holes, overlaps and overflows") {
  const auto entry = [](const std::string& shape, const std::string& offsets) {
    return one(R"({"dtype":"I32","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}");
  };
  CHECK(ends_with_condition(file_of(entry("[2,18446744073709551614]", "[0,16]"), 16), "ValidationOverflow"));
  CHECK(ends_with_condition(file_of(entry("[2,9223372036854775807]", "[0,16]"), 16), "ValidationOverflow"));
  CHECK(ends_with_condition(file_of(entry("[2,2]", "[0,4]"), 4), "TensorInvalidInfo"));
  CHECK(ends_with_condition(file_of(entry("[1]", "[4,8]"), 8), "InvalidOffset"));  // does not begin at 0
  CHECK(ends_with_condition(file_of(entry("[1]", "[4,0]"), 4), "InvalidOffset"));
  CHECK(ends_with_condition(file_of(entry("[0]", "[0,0]"), 4), "MetadataIncompleteBuffer"));
  CHECK(refusal(file_of(entry("[0,281474976710657]", "[0,0]"), 0)).find("more than 2^48") != std::string::npos);

  const auto pair = [](const std::string& a, const std::string& b) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + a +
           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}";
  };
  CHECK(refusal(file_of(pair("[4,8]", "[0,4]"), 8)).empty());  // any order of names
  CHECK(ends_with_condition(file_of(pair("[0,4]", "[5,9]"), 9), "InvalidOffset"));
  CHECK(ends_with_condition(file_of(pair("[0,4]", "[3,7]"), 7), "InvalidOffset"));
  CHECK(ends_with_condition(file_of(pair("[0,4]", "[0,4]"), 4), "InvalidOffset"));
  CHECK(ends_with_condition(file_of(one(R"({"dtype":"F4","shape":[3],"data_offsets":[0,2]})"), 2), "MisalignedSlice"));
}

TEST_CASE("safetensors: dtypes without a counterpart are named when they are read") {
  const std::string bytes = file_of(
      R"({"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[1],"data_offsets":[4,5]}})",
      5);
  CHECK(refusal(bytes) ==
        "tensor \"a\": dtype F8_E4M3 has no counterpart here; known are F64 F32 F16 BF16 I64 I32 U8 BOOL");
  const TemporaryFolder folder;
  const SafetensorsReader reader(folder.write("x", bytes));
  CHECK(reader.read("b").to_vector<int>() == std::vector<int>{0});  // the rest of the file is usable
  CHECK_THROWS_AS(reader.read("a"), Error);
  CHECK_THROWS_AS(reader.read("c"), Error);

  const std::string rank9 = one(R"({"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]})");
  CHECK(refusal(file_of(rank9, 1)) == "tensor \"t\": has 9 dimensions; a tensor has at most 8");
  const std::string boolean = one(R"({"dtype":"BOOL","shape":[2],"data_offsets":[0,2]})");
  std::string two = file_of(boolean, 2);
  CHECK(refusal(two).empty());
  two.back() = 2;
  CHECK(refusal(two) == "tensor \"t\": element 1 is the byte 2, a BOOL is 0 or 1");
  CHECK_THROWS_WITH_AS(load_safetensors("/nowhere/x"),
                       "safetensors: /nowhere/x: cannot open: No such file or directory", Error);
  CHECK_THROWS_AS(load_safetensors(folder.path()), Error);
}

TEST_CASE("safetensors: what is written is read back, bit for bit") {
  const TemporaryFolder folder;
  const auto path = folder / "x.safetensors";
  std::map<std::string, Tensor> tensors;
  for (const DType t : {f64, f32, f16, bf16, i64, i32, u8, boolean})
    tensors["a_" + to_string(t)] = raw::cast(arange(6), t);
  tensors["scalar"] = full({}, 2.5);
  tensors["empty"] = empty({3, 0, 2}, f16);
  tensors["transposed"] = raw::transpose(raw::reshape(raw::cast(arange(6), f32), {2, 3}), 0, 1);
  tensors["sliced"] = raw::slice(arange(10), 0, 1, 9, 3);
  tensors["n\"\\\n\u00e9\U0001F600"] = ones({1}, u8);
  save_safetensors(path, tensors, {{"format", "pt"}, {"step", "17"}});

  const auto loaded = load_safetensors(path);
  CHECK(loaded.metadata == std::map<std::string, std::string>{{"format", "pt"}, {"step", "17"}});
  REQUIRE(loaded.tensors.size() == tensors.size());
  for (const auto& [name, x] : tensors) {
    CAPTURE(name);
    const Tensor& y = loaded.tensors.at(name);
    CHECK(y.dtype() == x.dtype());
    CHECK(y.shape() == x.shape());
    CHECK(y.to_vector<double>() == x.to_vector<double>());
  }
  CHECK(folder.count() == 1);

  const SafetensorsReader reader(path);
  CHECK(reader.shape("transposed") == Dims{3, 2});
  CHECK(reader.read_flat("transposed", 1, 3).to_vector<float>() == std::vector<float>{3, 1, 4});
  CHECK(reader.read_flat("transposed", 6, 0).numel() == 0);
  CHECK_THROWS_AS(reader.read_flat("transposed", 4, 3), Error);
}

TEST_CASE("safetensors: the file's layout is the reference's") {
  const TemporaryFolder folder;
  const auto path = folder / "x";
  save_safetensors(path,
                   {{"b", full({1}, 1, f32)},
                    {"a", full({1}, 2, f32)},
                    {"z", full({1}, 3, i64)},
                    {"h", full({1}, 1, f16)},
                    {"g", full({1}, 1, bf16)},
                    {"u", full({1}, 1, u8)}},
                   {{"k", "v"}});
  const std::string bytes = contents_of(path);
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  CHECK((8 + length) % 64 == 0);
  std::string header = bytes.substr(8, length);
  header.erase(header.find_last_not_of(' ') + 1);
  CHECK(header == R"({"__metadata__":{"k":"v"},"z":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
                  R"("a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},)"
                  R"("b":{"dtype":"F32","shape":[1],"data_offsets":[12,16]},)"
                  R"("g":{"dtype":"BF16","shape":[1],"data_offsets":[16,18]},)"
                  R"("h":{"dtype":"F16","shape":[1],"data_offsets":[18,20]},)"
                  R"("u":{"dtype":"U8","shape":[1],"data_offsets":[20,21]}})");
  CHECK(bytes.size() == 8 + length + 21);
}

TEST_CASE("safetensors: what cannot be written is refused before the file is touched") {
  const TemporaryFolder folder;
  const auto path = folder.write("x", "old");
  CHECK_THROWS_AS(save_safetensors(path, {{"__metadata__", ones({1})}}), Error);
  CHECK_THROWS_AS(save_safetensors(path, {{"a", Tensor()}}), Error);
  CHECK_THROWS_AS(save_safetensors(path, {{"\xff", ones({1})}}), Error);
  CHECK_THROWS_AS(save_safetensors(path, {}, {{"a", "\xff"}}), Error);
  CHECK_THROWS_AS(save_safetensors(folder / "absent" / "x", {{"a", ones({1})}}), Error);
  CHECK(contents_of(path) == "old");
  CHECK(folder.count() == 1);
}

TEST_CASE("safetensors: a full disk leaves the old file and no other") {
  const TemporaryFolder folder;
  const auto path = folder / "x";
  save_safetensors(path, {{"a", ones({4})}});
  const std::string before = contents_of(path);
  std::string text;
  {
    const FileSizeLimit limit(4096);
    try {
      save_safetensors(path, {{"a", ones({4096})}});
    } catch (const Error& e) {
      text = e.what();
    }
  }
  CHECK(text == "safetensors: " + path.string() + ": cannot write the file: File too large");
  CHECK(contents_of(path) == before);
  CHECK(folder.count() == 1);
  CHECK(load_safetensors(path).tensors.at("a").to_vector<float>() == std::vector<float>(4, 1));
}

TEST_CASE("atomic file: without commit nothing changes") {
  const TemporaryFolder folder;
  const auto path = folder.write("x", "old");
  {
    AtomicFile file(path);
    file.write("new");
    CHECK(contents_of(path) == "old");
  }
  CHECK(contents_of(path) == "old");
  CHECK(folder.count() == 1);
  write_file_atomically(path, "new");
  CHECK(contents_of(path) == "new");
  CHECK(folder.count() == 1);
  CHECK_THROWS_AS(write_file_atomically(folder.path(), "new"), Error);
}
