// Many arrays in one launch: a table of pieces in the kernel's parameters, whose chunks of equal length are the blocks.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cuda/launch.h>

namespace loom::cuda {

inline constexpr int64_t chunk = 4096;  // elements that a block works on
inline constexpr int four = 4;          // elements that a thread works on at once

// Pieces of a launch: as many as its parameters hold, of which there may be 32,764 bytes from sm_70 and CUDA 12.1 on.
// The parameters of most models are one launch.
template <class Slot>
inline constexpr size_t table_length = 31 * 1024 / (sizeof(Slot) + sizeof(uint32_t));

// What a kernel knows of each piece is a Slot, which has a `numel`.
template <class Slot>
struct Table {
  int count = 0;
  std::array<uint32_t, table_length<Slot>> ends;  // chunks of the pieces up to this one
  std::array<Slot, table_length<Slot>> slots;

  uint32_t chunks() const { return count == 0 ? 0 : ends[count - 1]; }
  void add(const Slot& slot) {
    const auto own = static_cast<uint32_t>((slot.numel + chunk - 1) / chunk);
    ends[count] = chunks() + own;
    slots[count++] = slot;
  }
};

// Calls launch(table) with the slots that slot_of makes of the pieces that have elements and `belongs` holds for.
template <class Slot, class Belongs, class SlotOf, class Launch>
void for_each_table(std::span<const UpdatePiece> pieces, const Belongs& belongs, const SlotOf& slot_of,
                    const Launch& launch) {
  Table<Slot> table;
  const auto flush = [&] {
    if (table.count > 0) launch(static_cast<const Table<Slot>&>(table));
    table.count = 0;
  };
  for (const UpdatePiece& piece : pieces) {
    if (piece.numel == 0 || !belongs(piece)) continue;
    table.add(slot_of(piece));
    if (table.count == static_cast<int>(table_length<Slot>)) flush();
  }
  flush();
}

#if defined(__CUDACC__)
// Which slot this block works on, and the elements [begin, end) of it.
struct Part {
  int slot;
  int64_t begin, end;
};
template <class Slot>
__device__ __forceinline__ Part part_of_block(const Table<Slot>& table) {
  int low = 0, high = table.count - 1;  // the first slot whose end lies beyond this chunk
  while (low < high) {
    const int middle = (low + high) / 2;
    if (blockIdx.x < table.ends[middle])
      high = middle;
    else
      low = middle + 1;
  }
  const uint32_t first = low == 0 ? 0 : table.ends[low - 1];
  const int64_t begin = int64_t{blockIdx.x - first} * chunk, n = table.slots[low].numel;
  return {low, begin, begin + chunk < n ? begin + chunk : n};
}
#endif

}  // namespace loom::cuda
