// Tensors by name in one file: https://github.com/huggingface/safetensors. Reading is strict: what the reference
// implementation refuses is refused here too, and duplicate or unknown keys besides.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <loom/tensor/input_file.h>
#include <loom/tensor/safetensors_header.h>
#include <loom/tensor/tensor.h>

namespace loom {

struct SafetensorsFile {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

SafetensorsFile load_safetensors(const std::filesystem::path& path);

// Any strides, any device. The file is replaced as a whole or, when something fails (a full disk too), not at all.
// Layout as the reference writes it: wide dtypes first, then by name; the data starts at a multiple of 64 bytes.
void save_safetensors(const std::filesystem::path& path, const std::map<std::string, Tensor>& tensors,
                      const std::map<std::string, std::string>& metadata = {});

// Reads the header at once and tensors when asked for. May be shared by threads.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::filesystem::path& path);

  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const std::map<std::string, SafetensorsEntry>& entries() const { return header_.entries; }
  bool contains(const std::string& name) const { return header_.entries.contains(name); }
  DType dtype(const std::string& name) const;
  Dims shape(const std::string& name) const;

  Tensor read(const std::string& name) const;
  // Elements [begin, begin + count) in row-major order, as a tensor of rank 1: a shard, without the rest.
  Tensor read_flat(const std::string& name, int64_t begin, int64_t count) const;

 private:
  const SafetensorsEntry& entry(const std::string& name) const;
  std::string context(const std::string& name) const;

  std::unique_ptr<InputFile> file_;
  SafetensorsHeader header_;
  uint64_t data_start_ = 0;
};

}  // namespace loom
