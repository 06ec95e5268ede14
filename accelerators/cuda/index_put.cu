// Writing and adding by position, in one order. Where there are threads enough without splitting the indexed
// dimension, each goes along it; otherwise the places to write to are sorted, and what comes to one place is summed: in
// pieces of equal length, then the sums of the pieces.
#include <cmath>

#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/entries.h>
#include <loom/accelerators/cuda/index.h>
#include <loom/accelerators/cuda/scratch.h>
#include <loom/accelerators/cuda/sort_pairs.h>

namespace loom {

namespace {

using cpu::in_index;
using cpu::in_list;
using cpu::in_table;
using cpu::Plan;
using cuda::threads_per_block;

// Operations on an element of the table and one of the list.
struct Assign {
  template <class T>
  __device__ void operator()(T& table, const T& list) const {
    table = list;
  }
};
struct Add {
  template <class T>
  __device__ void operator()(T& table, const T& list) const {
    using A = accumulate_type<T>;
    table = cuda::convert<T>(static_cast<A>(static_cast<A>(table) + static_cast<A>(list)));
  }
};

// The walk goes over the table, the list and the index, all but the indexed dimension of length n, along which a step
// is of so many bytes.
template <class T, class Op>
__global__ void __launch_bounds__(threads_per_block)
    along_kernel(cuda::Walk<3> walk, int64_t n, std::array<int64_t, 3> step, cuda::Bounds bounds, Op op) {
  cuda::for_each_item(walk.numel, [&](uint32_t i) {
    const auto at = walk.offsets(i);
    char* const table = walk.data[in_table] + at[in_table];
    const char* list = walk.data[in_list] + at[in_list];
    const char* place = walk.data[in_index] + at[in_index];
    for (int64_t k = 0; k < n; ++k, list += step[in_list], place += step[in_index]) {
      const int64_t index = *reinterpret_cast<const int64_t*>(place);
      if (bounds.hold(index))
        op(*reinterpret_cast<T*>(table + index * step[in_table]), *reinterpret_cast<const T*>(list));
    }
  });
}

// Entry `first + i` of a walk over the list, the table (without the indexed dimension) and the index. `row`: bytes
// of the table an index; keys count `key_step` bytes from `base`.
__global__ void __launch_bounds__(threads_per_block)
    entries_kernel(cuda::Entries e, cuda::Walk<3> walk, int64_t first, const char* list, int64_t row,
                   cuda::Bounds bounds) {
  cuda::for_each_item(walk.numel, [&](uint32_t i) {
    const auto at = walk.offsets(i);
    const int64_t index = *reinterpret_cast<const int64_t*>(walk.data[2] + at[2]);
    e.from[first + i] = walk.data[0] + at[0] - list;
    e.keys[first + i] = bounds.hold(index) ? (walk.data[1] + at[1] + index * row - e.base) / e.key_step : e.end;
  });
}

// A list goes into a table.
class Put {
 public:
  Put(cuda::Gpu& gpu, const char* op, const View& table, const View& list, const View& index, int dim)
      : gpu_(gpu),
        op_(op),
        table_(table),
        list_(list),
        index_(index),
        plan_(cpu::plan(table, list, index, dim)),
        item_(static_cast<int64_t>(item_size(table.dtype))),
        bounds_{gpu.fault(), op, dim, plan_.extent} {}

  void assign() {
    cuda::with_bits(table_.dtype, [&]<class T> {
      if (goes_along(true)) return along<T>(Assign{});
      sorted([&](const cuda::Entries& e, const View& table, const View& list) { write<T>(e, table, list); });
    });
  }
  void add() {
    with_type(table_.dtype, [&]<class T> {
      if constexpr (std::is_same_v<T, bool>) {
        fail(op_, ": not implemented for boolean on cuda");
      } else {
        if (goes_along(!is_half(table_.dtype))) return along<T>(Add{});
        sorted([&](const cuda::Entries& e, const View& table, const View& list) { sum<T>(e, table, list); });
      }
    });
  }

 private:
  // 16-bit numbers would be rounded after every one that is added.
  bool goes_along(bool repeatedly) const {
    constexpr int64_t few = 32, many = 65536;
    const int64_t n = plan_.shape[plan_.dim], columns = plan_.shape.numel() / n;
    return n == 1 || (repeatedly && (n <= few || columns >= many));
  }

  // Without the indexed dimension.
  View across(const View& view, cpu::Role role) const {
    return cuda::part_of(view, plan_, role, -1, [&](int d) { return d != plan_.dim; });
  }

  template <class T, class Op>
  void along(const Op& op) {
    const View table = across(table_, in_table), list = across(list_, in_list), index = across(index_, in_index);
    const std::array<int64_t, 3> step{plan_.strides[in_table][plan_.dim] * item_,
                                      plan_.strides[in_list][plan_.dim] * item_,
                                      plan_.strides[in_index][plan_.dim] * 8};
    cuda::for_each_walk<3>({&table, &list, &index}, cpu::Order::any, [&](const cuda::Walk<3>& walk, int64_t) {
      cuda::launch(gpu_, op_, &along_kernel<T, Op>, cuda::grid_for(gpu_, walk.numel), threads_per_block, 0, walk,
                   plan_.shape[plan_.dim], step, bounds_, op);
    });
  }

  // One index for all that lies across the indexed dimension: entries are rows.
  bool has_rows() const {
    for (int d = 0; d < plan_.shape.size(); ++d)
      if (d != plan_.dim && plan_.shape[d] > 1 && plan_.strides[in_index][d] != 0) return false;
    return true;
  }

  // Calls put(entries, columns of the table, of the list) with sorted entries.
  template <class F>
  void sorted(const F& put) {
    const bool rows = has_rows();
    const auto entry = [&](int d) { return !rows || d == plan_.dim; };
    const auto column = [&](int d) { return !entry(d); };
    const int64_t n = rows ? plan_.shape[plan_.dim] : plan_.shape.numel();
    const cuda::Scratch keys(gpu_, static_cast<size_t>(n) * 8), from(gpu_, static_cast<size_t>(n) * 8);
    cuda::Entries e{keys.as<int64_t>(), from.as<int64_t>(), n, 0, 0, nullptr};
    number_places(e, rows);
    const View list = cuda::part_of(list_, plan_, in_list, -1, entry);
    const View table = cuda::part_of(table_, plan_, in_table, plan_.dim, entry);
    const View index = cuda::part_of(index_, plan_, in_index, -1, entry);
    cuda::for_each_walk<3>(
        {&list, &table, &index}, cpu::Order::row_major, [&](const cuda::Walk<3>& walk, int64_t first) {
          cuda::launch(gpu_, op_, &entries_kernel, cuda::grid_for(gpu_, walk.numel), threads_per_block, 0, e, walk,
                       first, list_.as<const char>(), plan_.strides[in_table][plan_.dim] * item_, bounds_);
        });
    cuda::sort_pairs(gpu_, e.keys, e.from, n, e.end + 1);
    put(e, cuda::part_of(table_, plan_, in_table, -1, column), cuda::part_of(list_, plan_, in_list, -1, column));
  }

  // Places in the table get numbers from 0 on: the index itself for rows, where the element lies otherwise.
  void number_places(cuda::Entries& e, bool rows) const {
    if (rows) {
      e.base = table_.as<char>();
      e.key_step = plan_.strides[in_table][plan_.dim] * item_;
      e.end = plan_.extent;
      if (e.key_step == 0) e.key_step = item_;  // of one place
      return;
    }
    int64_t low = 0, high = 0;
    for (int d = 0; d < plan_.shape.size(); ++d) {
      const int64_t reach = ((d == plan_.dim ? plan_.extent : plan_.shape[d]) - 1) * plan_.strides[in_table][d];
      (reach < 0 ? low : high) += reach;
    }
    e.base = table_.as<char>() + low * item_;
    e.key_step = item_;
    e.end = high - low + 1;
  }

  template <class T>
  void write(const cuda::Entries& e, const View& table, const View& list) {
    cuda::for_each_walk<2>({&table, &list}, cpu::Order::any, [&](const cuda::Walk<2>& columns, int64_t) {
      const cuda::Grid grid(columns.numel, e.n);
      cuda::launch(gpu_, op_, &cuda::write_kernel<T>, grid.blocks, grid.threads, 0, e, columns);
    });
  }

  // Entries of a piece: few enough that all threads have one, otherwise as many as there are pieces, which are added up
  // one after the other where they go to one place.
  static int64_t piece_for(int64_t n, int64_t columns) {
    constexpr int64_t shortest = 16, threads = 131072;
    const auto root = static_cast<int64_t>(std::sqrt(static_cast<double>(n)));
    return std::max(shortest, std::min(root, n / threads * columns + n % threads * columns / threads));
  }

  template <class T>
  void sum(const cuda::Entries& e, const View& table, const View& list) {
    using A = accumulate_type<T>;
    const int64_t columns = table.numel(), piece = piece_for(e.n, columns);
    const int64_t pieces = (e.n + piece - 1) / piece;
    const cuda::Scratch sums(gpu_, pieces > 1 ? static_cast<size_t>(2 * pieces * columns) * sizeof(A) : 0);
    cuda::for_each_walk<2>({&table, &list}, cpu::Order::any, [&](const cuda::Walk<2>& walk, int64_t first) {
      const cuda::Grid grid(walk.numel, pieces);
      const cuda::Partial<A> partial{sums.as<A>(), piece, columns, first};
      cuda::launch(gpu_, op_, &cuda::sum_kernel<T, A>, grid.blocks, grid.threads, 0, e, walk, partial);
      if (pieces > 1) cuda::launch(gpu_, op_, &cuda::join_kernel<T, A>, grid.blocks, grid.threads, 0, e, walk, partial);
    });
  }

  cuda::Gpu& gpu_;
  const char* op_;
  const View &table_, &list_, &index_;
  Plan plan_;
  int64_t item_;
  cuda::Bounds bounds_;
};

}  // namespace

void Cuda::index_add(const View& y, const View& x, const View& index, int dim) {
  if (x.numel() == 0) return;
  const View whole = cpu::spread(index, x, dim);
  Put(gpu_, "index_add", y, x, whole, dim).add();
}

void Cuda::scatter(Scatter mode, const View& y, const View& x, const View& index, int dim) {
  if (index.numel() == 0) return;
  if (mode == Scatter::add)
    Put(gpu_, "scatter_add", y, x, index, dim).add();
  else
    Put(gpu_, "scatter", y, x, index, dim).assign();
}

}  // namespace loom
