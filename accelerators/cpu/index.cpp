// Selecting and scattering by index. One kernel serves all four functions: index_select and index_add are gather and
// scatter whose index repeats (stride 0) over every dim but one.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include <loom/accelerators/cpu/index_plan.h>
#include <loom/accelerators/cpu/row_shares.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/cpu/stream.h>
#include <loom/accelerators/threads.h>

namespace loom {
using namespace cpu;

namespace {

// Looks at every index before any work, in order, so that the message does not depend on timing and nothing is half
// done.
void check_indices(const char* op, const View& index, int dim, int64_t extent) {
  View distinct = index;
  for (int d = 0; d < index.rank(); ++d)
    if (index.strides[d] == 0) distinct.shape[d] = std::min<int64_t>(index.shape[d], 1);
  const DenseInput<int64_t> dense(distinct);
  const int64_t* const at = dense.data();
  const int64_t n = distinct.numel();
  uint64_t highest = 0;  // a negative index is a very large unsigned one
  for (int64_t i = 0; i < n; ++i) highest = std::max(highest, static_cast<uint64_t>(at[i]));
  if (n == 0 || highest < static_cast<uint64_t>(extent)) return;
  const int64_t* const bad = std::find_if(at, at + n, [=](int64_t i) { return i < 0 || i >= extent; });
  fail(op, ": index ", *bad, " is out of range for dimension ", dim, " of size ", extent);
}

// How many of `inner` neighbours make a piece. Where `rows` alone do not keep all threads busy, each row is cut evenly
// for them, no finer, since every piece goes through the index, and where lines begin.
int64_t piece_width(int64_t inner, int64_t rows) {
  constexpr int64_t line = 16, least = 2 * line;  // elements of 4 bytes
  const int64_t threads = num_threads();
  if (rows % threads == 0 || rows >= 8 * threads) return inner;
  const int64_t lines = (inner + line - 1) / line;
  return std::max(least, (lines + threads - 1) / threads * line);
}

// Calls f(table offset, list offset, index offset, width) for independent pieces: `width` neighbours of the last dim (1
// where dim is the last) with everything along dim. No two pieces touch the same element, and each goes along dim in
// order.
template <class F>
void for_each_piece(const Plan& p, const F& f) {
  const int last = p.shape.size() - 1;
  if (p.shape.numel() == 0) return;
  const int64_t n = p.shape[p.dim];
  const int64_t inner = last == p.dim ? 1 : p.shape[last], rows = p.shape.numel() / n / inner;
  const int64_t block = piece_width(inner, rows), blocks = (inner + block - 1) / block;
  parallel_for(rows * blocks, grain_of(n * std::min(inner, block) * 2), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t column = i % blocks * block;
      std::array<int64_t, 3> offset{};
      if (last != p.dim)
        for (size_t r = 0; r < 3; ++r) offset[r] = column * p.strides[r][last];
      int64_t rest = i / blocks;
      for (int d = last == p.dim ? last : last - 1; d >= 0; --d) {
        if (d == p.dim) continue;
        for (size_t r = 0; r < 3; ++r) offset[r] += rest % p.shape[d] * p.strides[r][d];
        rest /= p.shape[d];
      }
      f(offset, std::min(block, inner - column));
    }
  });
}

// op(table element, list element) for all pairs.
template <class T, class Op>
void for_each_pair(const Plan& p, T* table, T* list, const int64_t* index, const Op& op) {
  const int last = p.shape.size() - 1;
  std::array<int64_t, 3> step{}, across{};
  for (size_t r = 0; r < 3; ++r) {
    step[r] = p.strides[r][p.dim];
    across[r] = last == p.dim ? 0 : p.strides[r][last];
  }
  const bool dense = across[in_table] == 1 && across[in_list] == 1;
  constexpr int64_t ahead = 2;  // rows
  if (last == p.dim) {          // pieces of width 1
    for_each_piece(p, [&](const std::array<int64_t, 3>& offset, int64_t) {
      T* const row = table + offset[in_table];
      T* const to = list + offset[in_list];
      const int64_t* const at = index + offset[in_index];
      for (int64_t i = 0; i < p.shape[p.dim]; ++i)
        op(row[at[i * step[in_index]] * step[in_table]], to[i * step[in_list]]);
    });
    return;
  }
  for_each_piece(p, [&](const std::array<int64_t, 3>& offset, int64_t width) {
    for (int64_t i = 0; i < p.shape[p.dim]; ++i) {
      T* const to = list + offset[in_list] + i * step[in_list];
      T* const from = table + offset[in_table];
      const int64_t* const at = index + offset[in_index] + i * step[in_index];
      if (across[in_index] == 0) {  // one index for the whole row
        T* const row = from + *at * step[in_table];
        if (dense && i + ahead < p.shape[p.dim])
          prefetch_run(from + at[ahead * step[in_index]] * step[in_table], width * static_cast<int64_t>(sizeof(T)));
        if (dense)
          for (int64_t j = 0; j < width; ++j) op(row[j], to[j]);
        else
          for (int64_t j = 0; j < width; ++j) op(row[j * across[in_table]], to[j * across[in_list]]);
      } else {
        for (int64_t j = 0; j < width; ++j)
          op(from[at[j * across[in_index]] * step[in_table] + j * across[in_table]], to[j * across[in_list]]);
      }
    }
  });
}

// Calls f with an integer type of the dtype's size: moving elements needs no arithmetic.
template <class F>
void with_bits(DType t, const F& f) {
  switch (item_size(t)) {
    case 1:
      return f.template operator()<uint8_t>();
    case 2:
      return f.template operator()<uint16_t>();
    case 4:
      return f.template operator()<uint32_t>();
    default:
      return f.template operator()<uint64_t>();
  }
}

constexpr int64_t ahead_bytes = 4096, shortest_row = 16, line = 64;

// A row of at least 16 bytes: for short ones a call costs more than the moves, of which the last two may overlap.
void move_row(char* y, const char* x, int64_t bytes) {
  if (bytes > 256) {
    std::memcpy(y, x, static_cast<size_t>(bytes));
    return;
  }
  for (int64_t i = 0; i + shortest_row < bytes; i += shortest_row) std::memcpy(y + i, x + i, shortest_row);
  std::memcpy(y + bytes - shortest_row, x + bytes - shortest_row, shortest_row);
}

// Rows of whole lines to where lines begin, past the caches: row_at(i) to y + i * bytes for i in [begin, end). The
// lines of a later row are asked for one by one, so that none has to wait for many others.
template <class F>
void stream_rows_at(char* y, const F& row_at, int64_t begin, int64_t end, int64_t bytes) {
  const int64_t ahead = std::max<int64_t>(1, 2 * ahead_bytes / bytes);
  for (int64_t i = begin; i < end; ++i) {
    const char *const x = row_at(i), *const later = row_at(std::min(i + ahead, end - 1));
    for (int64_t at = 0; at < bytes; at += line) {
      prefetch_second(later + at);
      for (int64_t j = at; j < at + line; j += vector_bytes) stream(y + i * bytes + j, x + j);
    }
  }
  stream_fence();
}

// Whole dense rows, an index each: as bytes, row after row, the next ones asked for while one is copied. known: how
// many bytes a row has, 0 where that is seen at run time.
template <int64_t known>
void copy_rows(const Plan& p, char* list, const char* table, const int64_t* index, int64_t item) {
  const int64_t rows = p.shape[0], bytes = known > 0 ? known : p.shape[1] * item;
  const int64_t ahead = std::max<int64_t>(1, ahead_bytes / bytes);
  const auto row_at = [&](int64_t i) {
    return table + index[i * p.strides[in_index][0]] * p.strides[in_table][0] * item;
  };
  const bool past = rows * bytes >= stream_bytes && p.strides[in_list][0] == p.shape[1] && bytes <= ahead_bytes;
  const bool whole_lines = past && bytes % line == 0 && reinterpret_cast<uintptr_t>(list) % line == 0;
  parallel_for(rows, grain_of(bytes / 4), [&](int64_t begin, int64_t end) {
    if (whole_lines) return stream_rows_at(list, row_at, begin, end, bytes);
    LineWriter<2 * ahead_bytes> lines;
    if (past) lines.start(list + begin * bytes);
    int64_t held = 0;
    for (int64_t i = begin; i < end; ++i) {
      if (i + ahead < end) prefetch_run(row_at(i + ahead), std::min(bytes, ahead_bytes));
      char* const to = past ? lines.room() + held : list + i * p.strides[in_list][0] * item;
      if constexpr (known > 0)
        std::memcpy(to, row_at(i), known);
      else
        move_row(to, row_at(i), bytes);
      if (!past) continue;
      held += bytes;
      if (held + bytes > ahead_bytes) lines.commit(std::exchange(held, 0));
    }
    if (past) {
      lines.commit(held);
      lines.finish();
    }
  });
}

using CopyRows = void (*)(const Plan&, char*, const char*, const int64_t*, int64_t);
CopyRows copy_rows_of(int64_t bytes) {
  return bytes == 16    ? copy_rows<16>
         : bytes == 32  ? copy_rows<32>
         : bytes == 64  ? copy_rows<64>
         : bytes == 128 ? copy_rows<128>
                        : copy_rows<0>;
}

// Shorter rows cost less as the loop over elements that all plans have.
bool takes_rows(const Plan& p, int64_t item) {
  return p.dim == 0 && p.shape.size() == 2 && p.strides[in_index][1] == 0 && p.strides[in_table][1] == 1 &&
         p.strides[in_list][1] == 1 && p.shape[1] * item >= shortest_row;
}

void take(const View& y, const View& x, const View& index, int dim) {
  const Plan p = plan(x, y, index, dim);
  const auto item = static_cast<int64_t>(item_size(x.dtype));
  if (y.numel() > 0 && takes_rows(p, item))
    return copy_rows_of(p.shape[1] * item)(p, y.as<char>(), x.as<const char>(), index.as<const int64_t>(), item);
  with_bits(x.dtype, [&]<class T> {
    for_each_pair(p, x.as<T>(), y.as<T>(), index.as<const int64_t>(), [](const T& table, T& list) { list = table; });
  });
}

// op as in for_each_pair, where that writes to the table. Whole dense rows, an index each, go to the thread that has
// their row of the table: cut into columns, threads would ask for each other's lines. False where that does not pay.
template <class T, class Op>
bool for_each_row_pair(const Plan& p, T* table, T* list, const int64_t* index, const Op& op) {
  const int64_t threads = num_threads(), n = p.shape[0];
  if (threads == 1 || !takes_rows(p, sizeof(T)) || p.extent * threads > p.shape.numel()) return false;
  const int64_t width = p.shape[1], bytes = width * static_cast<int64_t>(sizeof(T)), step = p.strides[in_index][0];
  if (n * width < grain_of(2)) return false;
  const RowShares shares(index, n, step, p.extent);
  if (!shares.even(threads)) return false;
  parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part)
      shares.for_each(part, threads, [&](int64_t i, int64_t later) {
        T* const row = table + index[i * step] * p.strides[in_table][0];
        T* const from = list + i * p.strides[in_list][0];
        prefetch_run(table + index[later * step] * p.strides[in_table][0], bytes);
        prefetch_run(list + later * p.strides[in_list][0], bytes);  // processors expect rows in order, all of them
        for (int64_t j = 0; j < width; ++j) op(row[j], from[j]);
      });
  });
  return true;
}

void put(const View& y, const View& x, const View& index, int dim) {
  const Plan p = plan(y, x, index, dim);
  with_bits(y.dtype, [&]<class T> {
    for_each_pair(p, y.as<T>(), x.as<T>(), index.as<const int64_t>(), [](T& table, const T& list) { table = list; });
  });
}

// 16-bit tables are widened as a whole, since an element may receive many terms.
void put_sum(const char* op, const View& y, const View& x, const View& index, int dim) {
  with_type(y.dtype, [&]<class S> {
    if constexpr (std::is_same_v<S, bool>) {
      fail(op, ": not implemented for boolean on cpu");
    } else if constexpr (std::is_same_v<S, compute_type<S>>) {
      const Plan p = plan(y, x, index, dim);
      const auto add = [](S& table, const S& list) { table = static_cast<S>(table + list); };
      if (!for_each_row_pair(p, y.as<S>(), x.as<S>(), index.as<const int64_t>(), add))
        for_each_pair(p, y.as<S>(), x.as<S>(), index.as<const int64_t>(), add);
    } else {
      using T = compute_type<S>;
      const DenseOutput<T> wide(y, true);
      const DenseInput<T> terms(x);
      put_sum(op, view_over(wide.data(), dtype_of<T>(), y.shape),
              view_over(const_cast<T*>(terms.data()), dtype_of<T>(), x.shape), index, dim);  // NOLINT: only read
      wide.store();
    }
  });
}

int64_t extent_of(const View& x, int dim) { return x.rank() == 0 ? 1 : x.shape[dim]; }

}  // namespace

void Cpu::index_select(const View& y, const View& x, const View& index, int dim) {
  check_indices("index_select", index, dim, extent_of(x, dim));
  take(y, x, spread(index, y, dim), dim);
}

void Cpu::index_add(const View& y, const View& x, const View& index, int dim) {
  check_indices("index_add", index, dim, extent_of(y, dim));
  put_sum("index_add", y, x, spread(index, x, dim), dim);
}

void Cpu::gather(const View& y, const View& x, const View& index, int dim) {
  check_indices("gather", index, dim, extent_of(x, dim));
  take(y, x, index, dim);
}

void Cpu::scatter(Scatter mode, const View& y, const View& x, const View& index, int dim) {
  const char* const op = mode == Scatter::add ? "scatter_add" : "scatter";
  check_indices(op, index, dim, extent_of(y, dim));
  if (mode == Scatter::add)
    put_sum(op, y, x, index, dim);
  else
    put(y, x, index, dim);
}

}  // namespace loom
