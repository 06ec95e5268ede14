// SPDX-License-Identifier: Apache-2.0
// One product: cut into blocks that fit the caches, packed where that pays, divided among threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <loom/accelerators/cpu/gemm_args.h>
#include <loom/accelerators/cpu/gemm_dot.h>
#include <loom/accelerators/cpu/gemm_pack.h>
#include <loom/accelerators/cpu/gemm_tile.h>
#include <loom/accelerators/cpu/gemm_vector.h>
#include <loom/accelerators/cpu/scratch.h>
#include <loom/accelerators/threads.h>

namespace loom::cpu {

namespace product_detail {

// E is what tiles multiply, S what memory holds.
template <class E, class S, class C>
class Product {
  using T = SumOf<E>;
  static constexpr int64_t per_step = is_pair<E> ? 2 : 1;  // elements along k that one step of a tile takes
  static constexpr int64_t panel = int64_t{tile_vectors} * lanes<T>;
  static constexpr bool same_type = std::is_same_v<C, T>;
  // Steps of k in one go. Deep, as every further block reads and writes all of c again; it decides the order of sums,
  // so it does not depend on the machine.
  static constexpr int64_t depth = 4096 / sizeof(E);
  static constexpr int64_t few_rows = 140, few_panels = 8;  // what is read so seldom is not packed
  static constexpr int64_t third_cache = 4 << 20;           // bytes of it that a block of b may take
  static constexpr int64_t far_apart = 1024 / sizeof(S);    // lines that no prefetcher of the processor follows

 public:
  // Into how many blocks k is cut. Columns of a that lie far apart would be read by short runs of rows in deep
  // blocks, which have few.
  static int64_t k_blocks(const ProductArgs<S, T, C>& whole) {
    const bool short_runs = same_type && whole.a.column_stride != 1 && whole.c.columns <= few_panels * panel;
    return std::max<int64_t>(1, ceil_div(ceil_div(whole.a.columns, per_step), short_runs ? depth / 2 : depth));
  }

  // Whether columns of b may lie in groups: only where b is read as it lies, in whole panels.
  static bool takes_groups(const ProductArgs<S, T, C>& p) {
    return std::is_same_v<E, S> && p.b.column_stride == 1 && p.c.column_stride == 1 && p.group_columns % panel == 0 &&
           p.c.rows <= few_rows && !is_vector_product(p);
  }

  // The product or some columns of it; `blocks` of the whole, whose sums do not depend on how it is divided.
  Product(const ProductArgs<S, T, C>& args, int64_t blocks)
      : p_(args), m_(args.c.rows), n_(args.c.columns), k_(args.a.columns), blocks_(blocks) {
    if (!same_type && blocks_ > 1) partial_ = Scratch<T>(m_ * n_);
  }

  void run() {
    const int64_t steps = ceil_div(ceil_div(k_, per_step), blocks_),
                  step_bytes = std::max<int64_t>(steps, 1) * sizeof(E);
    const int64_t block_columns = std::max<int64_t>(third_cache / (step_bytes * panel), 1) * panel;
    for (int64_t j = 0; j < n_; j += block_columns)
      for (int64_t block = 0; block < blocks_; ++block) {
        const int64_t from = std::min(block * steps * per_step, k_), to = std::min(from + steps * per_step, k_);
        multiply({.j = j,
                  .columns = std::min(block_columns, n_ - j),
                  .p = from,
                  .k = to - from,
                  .steps = ceil_div(to - from, per_step),
                  .first = block == 0,
                  .last = block == blocks_ - 1});
      }
  }

 private:
  // A range of columns and of k.
  struct Block {
    int64_t j, columns, p, k, steps;
    bool first, last;
  };
  // A tile's operand, packed or where it lies; of a also what a later tile will read.
  struct Part {
    const E* data;
    int64_t step, row;
    const E* ahead = nullptr;
    int64_t ahead_steps = 0;
  };

  // Few rows of c do not pay for packing b; few columns do not for packing a.
  bool b_lies_well() const { return std::is_same_v<E, S> && p_.b.column_stride == 1 && m_ <= few_rows; }
  bool a_lies_well() const {
    if (n_ > few_panels * panel && p_.group_columns == 0) return false;
    const bool along_k = p_.a.column_stride == 1;
    const int64_t far = along_k ? p_.a.row_stride : p_.a.column_stride;
    if (far * static_cast<int64_t>(sizeof(S)) % 2048 == 0 && m_ > tile_rows) return false;  // lines evict one another
    if (is_pair<E>) return along_k && k_ % 2 == 0 && p_.a.row_stride % 2 == 0;
    return std::is_same_v<E, S>;
  }

  // Of a column of b whose neighbours in a row are neighbours in memory.
  int64_t place_in_b(int64_t j) const {
    if (p_.group_columns == 0) return j;
    return j / p_.group_columns * p_.group_stride + j % p_.group_columns;
  }

  void multiply(const Block& block) {
    const int64_t panels = ceil_div(block.columns, panel);
    const bool b_direct = b_lies_well();
    const int64_t ragged = block.columns % panel;
    Workspace<E> memory;
    E* const packed = memory.get((b_direct ? (ragged != 0) : panels) * panel * block.steps);
    // The columns that do not fill a panel are packed always: tiles read whole vectors.
    const int64_t first_packed = b_direct ? panels - (ragged != 0) : 0;
    parallel_for(panels - first_packed, grain_of(panel * block.k / 4), [&](int64_t begin, int64_t end) {
      const MatrixRef<const S>& b = p_.b;
      const int64_t j = (first_packed + begin) * panel,
                    columns = std::min(end * panel + first_packed * panel, block.columns) - j;
      pack(packed + begin * panel * block.steps, panel, panel * block.steps,
           Lines<S>{b.data + block.p * b.row_stride + (block.j + j) * b.column_stride, b.column_stride, b.row_stride},
           columns, block.k);
    });
    const auto part_of_b = [&](int64_t q) {
      if (q >= first_packed) return Part{packed + (q - first_packed) * panel * block.steps, panel, 0};
      return Part{reinterpret_cast<const E*>(p_.b.data + block.p * p_.b.row_stride + place_in_b(block.j + q * panel)),
                  p_.b.row_stride, 0};
    };
    parallel_for(m_, grain_of(2 * block.columns * std::max<int64_t>(block.k, 1), parallel_flops),
                 [&](int64_t begin, int64_t end) { rows(block, begin, end, panels, part_of_b); });
  }

  static int64_t vectors_of(int64_t columns) { return ceil_div(columns, lanes<T>); }

  template <class PartOfB>
  void rows(const Block& block, int64_t begin, int64_t end, int64_t panels, const PartOfB& part_of_b) {
    const int64_t height = ceil_div(end - begin, ceil_div(end - begin, tile_rows));  // of tiles: about equal
    const MatrixRef<const S>& a = p_.a;
    if (a_lies_well()) return rows_as_they_lie(block, begin, end, height, panels, part_of_b);
    Workspace<E> memory;
    const bool copied = a.column_stride == 1 && n_ <= 2 * few_panels * panel;  // else worth the order of a tile's loop
    const int64_t line = ceil_div(block.steps, lanes<T>) * lanes<T> + lanes<T>;  // lines must not evict one another
    const int64_t stride = copied ? height * line : height * block.steps + lanes<T>;
    const int64_t most = std::min(ceil_div(end - begin, height) * height, rows_at_hand(height, stride));
    E* const packed = memory.get(most / height * stride);
    for (int64_t from = begin; from < end; from += most) {
      const int64_t to = std::min(end, from + most);
      const S* const first = a.data + from * a.row_stride + block.p * a.column_stride;
      if (copied)
        copy_lines(packed, line, first, a.row_stride, to - from, block.k);
      else
        pack(packed, height, stride, Lines<S>{first, a.row_stride, a.column_stride}, to - from, block.k);
      for (int64_t q = 0; q < panels; ++q)
        for (int64_t i = from; i < to; i += height) {
          E* const at = packed + (i - from) / height * stride;
          tile(block, i, std::min(height, to - i), q, copied ? Part{at, 1, line} : Part{at, height, 1}, part_of_b(q));
        }
    }
  }

  // Rows whose tiles of so many elements stay in the second cache, beside a panel of b and what passes through to c.
  static int64_t rows_at_hand(int64_t height, int64_t elements) {
    return std::max<int64_t>(second_cache() / 2 / (elements * static_cast<int64_t>(sizeof(E))), 1) * height;
  }

  // Rows along k meet a panel of b while it is near; of columns, whose lines hold little of a tile, one tile meets all.
  template <class PartOfB>
  void rows_as_they_lie(const Block& block, int64_t begin, int64_t end, int64_t height, int64_t panels,
                        const PartOfB& part_of_b) {
    constexpr int64_t scale = is_pair<E> ? 2 : 1;
    const MatrixRef<const S>& a = p_.a;
    const int64_t most =
        a.column_stride == 1 ? rows_at_hand(height, height * std::max<int64_t>(block.steps, 1)) : height;
    const bool far = a.row_stride == 1 && a.column_stride >= far_apart;
    const int64_t asked = far ? ceil_div(block.steps, panels * height) : 0;  // of the next rows, for each row and panel
    for (int64_t from = begin; from < end; from += most)
      for (int64_t q = 0; q < panels; ++q)
        for (int64_t i = from; i < std::min(end, from + most); i += height) {
          const E* const at = reinterpret_cast<const E*>(a.data + i * a.row_stride + block.p * a.column_stride);
          Part part{at, a.column_stride, a.row_stride / scale};
          if (asked > 0 && i + height < end) {
            part.ahead_steps = asked;
            part.ahead = at + height + asked * height * q * a.column_stride;
          }
          tile(block, i, std::min(height, end - i), q, part, part_of_b(q));
        }
  }

  void tile(const Block& block, int64_t i, int64_t rows, int64_t q, const Part& a, const Part& b) {
    const int64_t j = block.j + q * panel, columns = std::min(panel, block.columns - q * panel);
    const int64_t vectors = vectors_of(columns), width = vectors * lanes<T>;
    const bool whole = masks_tiles || columns == width;
    // The end is made where the kernel reads it: a copy would be read at once, wider than it was written, and so wait
    // for all that the tile before has stored.
    const auto run = [&]<class Out>(Out* c, int64_t c_row, int64_t wide, bool ends) {
      tile_kernel<E, Out>(rows, vectors)({block.steps, a.data, a.step, a.row, b.data, b.step, c, c_row, wide,
                                          ends ? end_of(block, i, j) : TileEnd<T>{}, a.ahead, a.ahead_steps});
    };
    const bool reads_c = !block.first || (same_type && p_.beta != 0);
    if (whole && (!adds_bias(block) || (!reads_c && p_.bias_column <= 1))) {
      const MatrixRef<T> sums = running_sums();
      if (!same_type && !block.last) return run(sums.data + i * sums.row_stride + j, sums.row_stride, columns, true);
      if constexpr (has_tile_kernel<E, C>)
        if (p_.c.column_stride == 1 && (same_type || p_.beta == 0))
          return run(p_.c.data + i * p_.c.row_stride + j, p_.c.row_stride, columns, true);
    }
    alignas(64) T sums[tile_rows * panel];
    run(sums, width, width, false);
    for (int64_t r = 0; r < rows; ++r) finish(block, sums + r * width, i + r, j, columns);
  }

  // beta * c joins first where c is of T, and with the sums of all other blocks where it is not; so does the bias.
  TileEnd<T> end_of(const Block& block, int64_t i, int64_t j) const {
    const MatrixRef<T> sums = running_sums();
    TileEnd<T> end{.alpha = p_.alpha, .base_row = sums.row_stride};
    if (sums.data != nullptr) end.base = sums.data + i * sums.row_stride + j;  // null: one block of k, nothing kept
    if (!block.first)
      end.from = 1;
    else if (same_type)
      end.from = p_.beta;
    if (adds_bias(block)) end.bias = bias(i, j);
    end.bias_row = p_.bias_row;
    end.bias_column = p_.bias_column;
    return end;
  }

  static bool adds_now(const Block& block) { return same_type ? block.first : block.last; }
  bool adds_bias(const Block& block) const { return p_.bias != nullptr && adds_now(block); }
  const T* bias(int64_t i, int64_t j) const {
    return p_.bias == nullptr ? nullptr : p_.bias + i * p_.bias_row + j * p_.bias_column;
  }

  // Where the sums of earlier blocks of k are.
  MatrixRef<T> running_sums() const {
    if constexpr (same_type)
      return p_.c;
    else
      return {partial_.data(), m_, n_, n_, 1};
  }

  // A row of a tile, element by element: the tiles that kernels do not write themselves.
  void finish(const Block& block, T* sums, int64_t i, int64_t j, int64_t columns) {
    C* const c = p_.c.data + i * p_.c.row_stride + j * p_.c.column_stride;
    const int64_t step = p_.c.column_stride;
    for (int64_t x = 0; x < columns; ++x) sums[x] *= p_.alpha;
    if (adds_now(block)) {
      if (p_.beta != 0)
        for (int64_t x = 0; x < columns; ++x) sums[x] += p_.beta * static_cast<T>(c[x * step]);
      if (p_.bias != nullptr)
        for (int64_t x = 0; x < columns; ++x) sums[x] += bias(i, j)[x * p_.bias_column];
    }
    if (!block.first) {
      T* const partial = same_type ? nullptr : partial_.data() + i * n_ + j;
      for (int64_t x = 0; x < columns; ++x) sums[x] += partial != nullptr ? partial[x] : static_cast<T>(c[x * step]);
    }
    if (!same_type && !block.last) {
      std::copy_n(sums, columns, partial_.data() + i * n_ + j);
    } else if (step == 1) {
      for (int64_t x = 0; x < columns; ++x) c[x] = static_cast<C>(sums[x]);
    } else {
      for (int64_t x = 0; x < columns; ++x) c[x * step] = static_cast<C>(sums[x]);
    }
  }

  const ProductArgs<S, T, C>& p_;
  int64_t m_, n_, k_, blocks_;
  Scratch<T> partial_;  // m x n, sums of earlier blocks of k where c is of a narrower type
};

}  // namespace product_detail

// In the calling thread and, where the product is large enough, in others too; c must not be empty.
template <class E, class S, class T, class C>
void multiply(const ProductArgs<S, T, C>& p) {
  using namespace product_detail;
  if (is_vector_product(p)) {
    const int64_t flops = 2 * vector_lines<T> * p.c.rows * std::max<int64_t>(p.a.columns, 1);
    return parallel_for(ceil_div(p.c.columns, vector_lines<T>), grain_of(flops, parallel_flops / 4),
                        [&](int64_t begin, int64_t end) {
                          vector_products(p, begin * vector_lines<T>, std::min(p.c.columns, end * vector_lines<T>));
                        });
  }
  if (p.c.columns <= 3 && is_vector_product(transposed(p))) return multiply<E>(transposed(p));
  if constexpr (std::is_same_v<E, S> && std::is_same_v<S, T> && std::is_same_v<C, T>)
    if (is_dot_product(p)) {
      if (p.c.rows < p.c.columns) return multiply<E>(transposed(p));
      const int64_t flops = 2 * lanes<T> * p.c.columns * p.a.columns;
      return parallel_for(
          ceil_div(p.c.rows, lanes<T>), grain_of(flops, parallel_flops),
          [&](int64_t begin, int64_t end) { dot_products(p, begin * lanes<T>, std::min(p.c.rows, end * lanes<T>)); });
    }
  if (p.c.column_stride != 1 && p.c.row_stride == 1 && p.c.rows > 1) return multiply<E>(transposed(p));
  const int64_t blocks = Product<E, S, C>::k_blocks(p);
  if (p.c.rows >= p.c.columns) return Product<E, S, C>(p, blocks).run();
  const int64_t unit = p.group_columns > 0 ? p.group_columns : int64_t{tile_vectors} * lanes<T>, n = p.c.columns;
  const int64_t flops = 2 * unit * p.c.rows * std::max<int64_t>(p.a.columns, 1);
  parallel_for(ceil_div(n, unit), grain_of(flops, parallel_flops), [&](int64_t begin, int64_t end) {
    const int64_t from = begin * unit, to = std::min(n, end * unit);
    ProductArgs<S, T, C> part = p;
    part.b.data += p.group_columns > 0 ? begin * p.group_stride : from * p.b.column_stride;
    part.c.data += from * p.c.column_stride;
    part.b.columns = part.c.columns = to - from;
    if (p.bias != nullptr) part.bias += from * p.bias_column;
    Product<E, S, C>(part, blocks).run();
  });
}

}  // namespace loom::cpu
