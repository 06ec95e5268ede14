#include <loom/accelerators/cuda/watch.h>

#include <algorithm>
#include <iostream>

#include <loom/accelerators/cuda/launch.h>

namespace loom::cuda {

namespace {

constexpr int not_a_number = 0xff, untouched = 0xa5;
constexpr size_t most_listed = 10;

// One thread: the first byte that is wrong is the one to be told of.
__global__ void inspect_kernel(const unsigned char* block, int64_t bytes, int64_t number, Fault* fault,
                               const char* where) {
  constexpr auto zone = static_cast<int64_t>(Watch::zone);
  for (int64_t i = -zone; i < bytes + zone; i = i == -1 ? bytes : i + 1) {
    if (block[i] == untouched) continue;
    report(fault, FaultKind::overrun, where, i, number, bytes);
    return;
  }
}

}  // namespace

void* Watch::allocate(size_t bytes) {
  const cudaStream_t stream = gpu_.stream();
  char* const memory = static_cast<char*>(gpu_.memory().allocate(bytes + 2 * zone, stream));
  char* const block = memory + zone;
  const DeviceScope scope(gpu_.index());
  const bool in_graph = is_capturing(stream);
  if (!in_graph) check_cuda(cudaMemsetAsync(memory, untouched, bytes + 2 * zone, stream), "allocate");
  check_cuda(cudaMemsetAsync(block, not_a_number, bytes, stream), "allocate");
  const std::lock_guard lock(mutex_);
  blocks_.emplace(block, Watched{bytes, ++allocated_, stream, in_graph});
  return block;
}

// What a capture has seen of a block goes on at every replay.
bool Watch::is_of_graph(const Watched& watched) {
  return watched.in_graph || is_capturing(watched.stream) || std::ranges::any_of(watched.users, is_capturing);
}

// In the block's stream, after all that others do with it: what the next owner is given is what was left here.
void Watch::inspect(char* block, const Watched& watched) {
  const DeviceScope scope(gpu_.index());
  for (const cudaStream_t user : watched.users) {
    const std::shared_ptr<void> event = new_event();
    check_cuda(cudaEventRecord(static_cast<cudaEvent_t>(event.get()), user), "release");
    check_cuda(cudaStreamWaitEvent(watched.stream, static_cast<cudaEvent_t>(event.get())), "release");
  }
  start_kernel(&inspect_kernel, dim3(1), dim3(1), 0, watched.stream, reinterpret_cast<unsigned char*>(block),
               static_cast<int64_t>(watched.bytes), watched.number, gpu_.fault(), "memory of");
  check_cuda(cudaPeekAtLastError(), "release");
  check_cuda(cudaMemsetAsync(block - zone, not_a_number, watched.bytes + 2 * zone, watched.stream), "release");
}

// A device that has failed is no reason to end the program here: whoever waits for it next hears of it.
void Watch::release(void* memory) noexcept {
  char* const block = static_cast<char*>(memory);
  std::unique_lock lock(mutex_);
  const auto at = blocks_.find(block);
  if (at == blocks_.end()) {
    std::cerr << str("loom: memory of cuda:", gpu_.index(), ": a block is released that is not in use\n");
    return;
  }
  const Watched watched = std::move(at->second);
  blocks_.erase(at);
  lock.unlock();
  try {
    if (is_of_graph(watched))
      for (const cudaStream_t user : watched.users) gpu_.memory().use_by(block - zone, user);
    else
      inspect(block, watched);
  } catch (const Error& error) {
    std::cerr << str("loom: ", error.what(), "\n");
  }
  gpu_.memory().release(block - zone);
}

void Watch::use_by(void* block, cudaStream_t stream) {
  const std::lock_guard lock(mutex_);
  const auto after = blocks_.upper_bound(block);
  if (after == blocks_.begin()) return;
  Watched& watched = std::prev(after)->second;
  if (static_cast<char*>(block) >= static_cast<char*>(std::prev(after)->first) + watched.bytes) return;
  if (stream != watched.stream && std::ranges::find(watched.users, stream) == watched.users.end())
    watched.users.push_back(stream);
}

std::string Watch::leaks() const {
  const std::lock_guard lock(mutex_);
  if (blocks_.empty()) return {};
  std::vector<std::pair<int64_t, size_t>> left;
  left.reserve(blocks_.size());
  size_t bytes = 0;
  for (const auto& [block, watched] : blocks_) {
    left.emplace_back(watched.number, watched.bytes);
    bytes += watched.bytes;
  }
  std::ranges::sort(left);
  std::string out =
      str(left.size(), left.size() == 1 ? " block is" : " blocks are", " still in use, ", bytes, " bytes:");
  for (size_t i = 0; i < std::min(left.size(), most_listed); ++i)
    out += str(i == 0 ? " " : ", ", left[i].second, " (the ", left[i].first, "th that was allocated)");
  return left.size() > most_listed ? out + ", ..." : out;
}

}  // namespace loom::cuda
