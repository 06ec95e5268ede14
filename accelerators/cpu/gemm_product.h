// SPDX-License-Identifier: Apache-2.0
// One product: cut into blocks that fit the caches, packed where that pays, divided among threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <loom/accelerators/cpu/gemm_args.h>
#include <loom/accelerators/cpu/gemm_pack.h>
#include <loom/accelerators/cpu/gemm_panels.h>
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
  static constexpr int64_t panel = Panels<E, S>::width;
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

  // The product or some columns of it; `blocks` of the whole, whose sums do not depend on how it is divided. alone: it
  // has but this thread.
  Product(const ProductArgs<S, T, C>& args, int64_t blocks, bool alone)
      : p_(args), m_(args.c.rows), n_(args.c.columns), k_(args.a.columns), blocks_(blocks), alone_(alone) {
    if (!same_type && blocks_ > 1) partial_ = Scratch<T>(m_ * n_);
  }

  void run() {
    const int64_t steps = ceil_div(ceil_div(k_, per_step), blocks_),
                  step_bytes = std::max<int64_t>(steps, 1) * sizeof(E);
    const bool keeps_b = packing(plan_of({.steps = steps}, m_), steps) != Packing::last_kept;
    const int64_t block_columns = keeps_b ? std::max<int64_t>(third_cache / (step_bytes * panel), 1) * panel : n_;
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
    int64_t j = 0, columns = 0, p = 0, k = 0, steps = 0;
    bool first = true, last = true;
  };
  // How rows of a are taken: `height` of them a tile, so many tiles at a time that these and a panel stay near. Packed
  // a tile's rows, or copied each as it lies, take `stride` elements, of which a copied row takes `line`.
  struct RowPlan {
    int64_t height = 0, most = 0, stride = 0, line = 0;
    bool in_place = false, copied = false, together = false;  // together: all are packed before the first tile
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

  // Lines that cross rows so far apart share few places of the second cache: some asked for ahead would not stay there,
  // and are cheaper to read beside their neighbours.
  static bool evicted(int64_t line_stride, int64_t step) {
    return line_stride == 1 && step * static_cast<int64_t>(sizeof(S)) % 4096 == 0;
  }
  bool is_small(int64_t lines) const { return lines * k_ * static_cast<int64_t>(sizeof(S)) <= few_bytes; }
  Packing packing(const RowPlan& plan, int64_t steps) const {
    const bool asked = steps >= least_asked && !(plan.in_place && p_.a.column_stride != 1);
    if (!alone_ || !asked || is_small(n_) || evicted(p_.b.column_stride, p_.b.row_stride)) return Packing::before;
    return plan.most >= m_ ? Packing::last_kept : Packing::one_by_one;
  }

  void multiply(const Block& block) {
    const RowPlan whole = plan_of(block, m_);
    MatrixRef<const S> b = p_.b;
    b.data += block.p * b.row_stride;
    Panels<E, S> panels({b, block.j, block.columns, block.k, block.steps, p_.group_columns, p_.group_stride},
                        b_lies_well(), packing(whole, block.steps));
    if (alone_) return rows(block, 0, m_, whole, panels);
    parallel_for(m_, grain_of(2 * block.columns * std::max<int64_t>(block.k, 1), parallel_flops),
                 [&](int64_t begin, int64_t end) { rows(block, begin, end, plan_of(block, end - begin), panels); });
  }

  static int64_t vectors_of(int64_t columns) { return ceil_div(columns, lanes<T>); }

  RowPlan plan_of(const Block& block, int64_t rows) const {
    const int64_t height = ceil_div(rows, ceil_div(rows, tile_rows));            // of tiles: about equal
    const int64_t line = ceil_div(block.steps, lanes<T>) * lanes<T> + lanes<T>;  // lines must not evict one another
    RowPlan plan{.height = height, .line = line, .in_place = a_lies_well()};
    plan.copied = p_.a.column_stride == 1 && n_ <= 2 * few_panels * panel;  // else worth the order of a tile's loop
    plan.together = is_small(rows) || evicted(p_.a.row_stride, p_.a.column_stride);
    if (plan.in_place)
      plan.stride = height * std::max<int64_t>(block.steps, 1);
    else
      plan.stride = plan.copied ? height * line : height * block.steps + lanes<T>;
    // Of columns in place, whose lines hold little of a tile, one tile meets all panels.
    const bool near = plan.in_place && p_.a.column_stride != 1;
    plan.most = near ? height : rows_at_hand(rows, height, plan.stride);
    return plan;
  }

  // Rows whose tiles of so many elements stay in the second cache, beside a panel of b and what passes through to c;
  // all of them where that leaves a panel just enough.
  static int64_t rows_at_hand(int64_t rows, int64_t height, int64_t elements) {
    const int64_t tiles = ceil_div(rows, height), bytes = elements * static_cast<int64_t>(sizeof(E));
    if (tiles * bytes <= second_cache() / 16 * 13) return tiles * height;
    return std::clamp<int64_t>(second_cache() / 2 / bytes, 1, tiles) * height;
  }

  // Rows of a from i on, along k.
  Lines<S> lines_of_a(const Block& block, int64_t i) const {
    const MatrixRef<const S>& a = p_.a;
    return {a.data + i * a.row_stride + block.p * a.column_stride, a.row_stride, a.column_stride};
  }

  void rows(const Block& block, int64_t begin, int64_t end, const RowPlan& plan, Panels<E, S>& panels) {
    if (plan.in_place) return rows_as_they_lie(block, begin, end, plan, panels);
    const int64_t height = plan.height;
    Workspace<E> memory;
    E* const packed = memory.get(plan.most / height * plan.stride);
    for (int64_t from = begin; from < end; from += plan.most) {
      const int64_t to = std::min(end, from + plan.most);
      if (plan.together) pack_rows(packed, block, from, to - from, plan);
      for (int64_t q = 0; q < panels.count(); ++q) {
        const Part<E> b = panels.get(q);
        const bool packs = q == 0 && !plan.together;
        for (int64_t i = from; i < to; i += height) {
          E* const at = packed + (i - from) / height * plan.stride;
          const int64_t count = std::min(height, to - i);
          if (packs) pack_rows(at, block, i, count, plan);
          const Ahead ahead =
              packs ? next_rows(block, i + height, to, height, height, 0) : panels.ahead(q + 1, to - from, i - from);
          tile(block, i, count, q, plan.copied ? Part<E>{at, 1, plan.line} : Part<E>{at, height, 1}, b, ahead);
        }
      }
    }
  }

  // What a tile of rows from i on will read of a, asked for with `slots` rows of tiles, of which `done` are over.
  Ahead next_rows(const Block& block, int64_t i, int64_t end, int64_t height, int64_t slots, int64_t done) const {
    if (i >= end || block.steps < least_asked) return {};
    return ahead_of(lines_of_a(block, i), std::min(height, end - i), block.k, slots, done);
  }

  void pack_rows(E* to, const Block& block, int64_t i, int64_t count, const RowPlan& plan) const {
    const Lines<S> from = lines_of_a(block, i);
    if (plan.copied)
      copy_lines(to, plan.line, from.data, from.line_stride, count, block.k);
    else
      pack(to, plan.height, plan.stride, from, count, block.k, m_ - i);
  }

  // Rows along k meet a panel of b while it is near.
  void rows_as_they_lie(const Block& block, int64_t begin, int64_t end, const RowPlan& plan, Panels<E, S>& panels) {
    constexpr int64_t scale = is_pair<E> ? 2 : 1;
    const MatrixRef<const S>& a = p_.a;
    const int64_t height = plan.height;
    const bool far = a.row_stride == 1 && a.column_stride >= far_apart;
    for (int64_t from = begin; from < end; from += plan.most) {
      const int64_t to = std::min(end, from + plan.most);
      for (int64_t q = 0; q < panels.count(); ++q) {
        const Part<E> b = panels.get(q);
        for (int64_t i = from; i < to; i += height) {
          const Lines<S> lines = lines_of_a(block, i);
          Ahead ahead = far ? next_rows(block, i + height, end, height, panels.count() * height, q * height)
                            : panels.ahead(q + 1, to - from, i - from);
          ahead.soon = far;
          tile(block, i, std::min(height, end - i), q,
               {reinterpret_cast<const E*>(lines.data), a.column_stride, a.row_stride / scale}, b, ahead);
        }
      }
    }
  }

  void tile(const Block& block, int64_t i, int64_t rows, int64_t q, const Part<E>& a, const Part<E>& b,
            const Ahead& ahead) {
    const int64_t j = block.j + q * panel, columns = std::min(panel, block.columns - q * panel);
    const int64_t vectors = vectors_of(columns), width = vectors * lanes<T>;
    const bool whole = masks_tiles || columns == width;
    // The end is made where the kernel reads it: a copy would be read at once, wider than it was written, and so wait
    // for all that the tile before has stored.
    const auto run = [&]<class Out>(Out* c, int64_t c_row, int64_t wide, bool ends) {
      tile_kernel<E, Out>(rows, vectors)({block.steps, a.data, a.step, a.row, b.data, b.step, c, c_row, wide,
                                          ends ? end_of(block, i, j) : TileEnd<T>{}, ahead});
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
  bool alone_;
  Scratch<T> partial_;  // m x n, sums of earlier blocks of k where c is of a narrower type
};

}  // namespace product_detail

}  // namespace loom::cpu
