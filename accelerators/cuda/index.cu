// Reading by position. One kernel serves both functions: index_select is gather whose index repeats (stride 0) over
// every dimension but one. Neighbours that share an index are moved as one row, 16 bytes at a time.
#include <bit>

#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/element.h>
#include <loom/accelerators/cuda/index.h>

namespace loom {

namespace {

using cpu::in_index;
using cpu::in_list;
using cpu::in_table;
using cuda::threads_per_block;

// How rows are read: `items` items of the table at `step` bytes for each index, by a power of two of threads.
struct Rows {
  int64_t step, items;
  int shift;
};

// The walk goes over the rows of the list, of the table (but for the step) and over the index.
template <class T>
__global__ void __launch_bounds__(threads_per_block) take_kernel(cuda::Walk<3> walk, Rows rows, cuda::Bounds bounds) {
  const uint32_t lanes = 1u << rows.shift, lane = threadIdx.x & (lanes - 1);
  const uint32_t groups = (gridDim.x * blockDim.x) >> rows.shift;
  for (uint32_t i = (blockIdx.x * blockDim.x + threadIdx.x) >> rows.shift; i < walk.numel; i += groups) {
    const auto at = walk.offsets(i);
    const int64_t index = *reinterpret_cast<const int64_t*>(walk.data[2] + at[2]);
    T* const to = reinterpret_cast<T*>(walk.data[0] + at[0]);
    const T* const from = reinterpret_cast<const T*>(walk.data[1] + at[1] + index * rows.step);
    const bool valid = bounds.hold(index);
    for (int64_t c = lane; c < rows.items; c += lanes) to[c] = valid ? from[c] : T{};
  }
}

// Whether the last dimension is a row: dense on both sides, with one index for all of it.
bool has_rows(const cpu::Plan& p) {
  const int last = p.shape.size() - 1;
  return last != p.dim && p.strides[in_index][last] == 0 && p.strides[in_table][last] == 1 &&
         p.strides[in_list][last] == 1;
}

// Whether all rows begin and end at multiples of 16 bytes.
bool fill_packs(const cpu::Plan& p, const View& y, const View& x) {
  const int last = p.shape.size() - 1;
  const auto item = static_cast<int64_t>(item_size(x.dtype));
  const auto whole = [&](int64_t elements) { return elements * item % 16 == 0; };
  for (int d = 0; d < last; ++d)
    if (!whole(p.strides[in_table][d]) || !whole(p.strides[in_list][d])) return false;
  return whole(p.shape[last]) && cuda::is_aligned(x.data) && cuda::is_aligned(y.data);
}

// Threads for a row: each moves two items or more, as a row's index has to be read first.
int shift_for(int64_t items) {
  const auto lanes = std::bit_ceil(static_cast<uint64_t>(std::min<int64_t>((items + 1) / 2, threads_per_block)));
  return std::countr_zero(lanes);
}

template <class T>
void run(cuda::Gpu& gpu, const std::array<View, 3>& views, const Rows& rows, const cuda::Bounds& bounds) {
  cuda::for_each_walk<3>({&views[0], &views[1], &views[2]}, cpu::Order::any, [&](const cuda::Walk<3>& walk, int64_t) {
    const int blocks = cuda::grid_for(gpu, int64_t{walk.numel} << rows.shift);
    cuda::launch(gpu, bounds.op, &take_kernel<T>, blocks, threads_per_block, 0, walk, rows, bounds);
  });
}

void take(cuda::Gpu& gpu, const char* op, const View& y, const View& x, const View& index, int dim) {
  if (y.numel() == 0) return;
  const cpu::Plan p = cpu::plan(x, y, index, dim);
  const int last = p.shape.size() - 1;
  const bool as_rows = has_rows(p);
  const auto keep = [&](int d) { return !as_rows || d != last; };
  const std::array<View, 3> views{cuda::part_of(y, p, in_list, -1, keep), cuda::part_of(x, p, in_table, p.dim, keep),
                                  cuda::part_of(index, p, in_index, -1, keep)};
  const auto item = static_cast<int64_t>(item_size(x.dtype));
  const int64_t step = p.strides[in_table][p.dim] * item, row = as_rows ? p.shape[last] : 1;
  const cuda::Bounds bounds{gpu.fault(), op, dim, p.extent};
  if (as_rows && fill_packs(p, y, x)) {
    const int64_t packs = row * item / 16;
    return run<cuda::Pack<uint32_t>>(gpu, views, {step, packs, shift_for(packs)}, bounds);
  }
  cuda::with_bits(x.dtype, [&]<class T> { run<T>(gpu, views, {step, row, shift_for(row)}, bounds); });
}

}  // namespace

void Cuda::index_select(const View& y, const View& x, const View& index, int dim) {
  take(gpu_, "index_select", y, x, cpu::spread(index, y, dim), dim);
}

void Cuda::gather(const View& y, const View& x, const View& index, int dim) { take(gpu_, "gather", y, x, index, dim); }

}  // namespace loom
