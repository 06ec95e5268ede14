// Memory of a GPU as LOOM_POISON=1 has it: what is new and what was freed is NaN, and what is written beside a block is
// found when it is freed.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <loom/accelerators/cuda/device.h>

namespace loom::cuda {

class Watch {
 public:
  // Bytes on both sides of a block that nobody may write to. Blocks stay on boundaries of as many.
  static constexpr size_t zone = 256;

  explicit Watch(Gpu& gpu) : gpu_(gpu) {}
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  void* allocate(size_t bytes);
  // Looks at the zones, in the block's stream: what is found becomes an Error when the host next waits for the device.
  void release(void* block) noexcept;
  void use_by(void* block, cudaStream_t stream);
  // "2 blocks are still in use, 1536 bytes: 1024 (the 17th that was allocated), ..."; empty where none is.
  std::string leaks() const;

 private:
  struct Watched {
    size_t bytes;
    int64_t number;
    cudaStream_t stream;
    bool in_graph;  // allocated in a capture: its zones would be written at replays, and looked at whenever
    std::vector<cudaStream_t> users = {};
  };
  static bool is_of_graph(const Watched& watched);
  void inspect(char* block, const Watched& watched);

  Gpu& gpu_;
  mutable std::mutex mutex_;
  std::map<void*, Watched> blocks_;
  int64_t allocated_ = 0;
};

}  // namespace loom::cuda
