// Attention in tiles of queries and keys with a running maximum and sum (Dao et al. 2022), and its gradient, which
// computes the scores again from the logsumexp of each row.
#include <cmath>

#include <loom/accelerators/cpu/attention.h>
#include <loom/accelerators/cpu/exp_rows.h>
#include <loom/accelerators/threads.h>

namespace loom {
using namespace cpu;

namespace {

// One tile of queries on its way through the keys.
template <class T>
struct Running {
  T* out;  // [rows, columns], not yet divided by `sum`
  int64_t rows, columns;
  T top[query_block], sum[query_block];

  Running(T* y, int64_t r, int64_t c) : out(y), rows(r), columns(c) {
    std::fill_n(top, rows, -std::numeric_limits<T>::infinity());
    std::fill_n(sum, rows, T(0));
    std::fill_n(out, rows * columns, T(0));
  }

  // s becomes exp(s - around); their sum.
  static double exp_of(T* s, int64_t n, T around) {
    if constexpr (has_table_exp<T>)
      return sum_of_exp<true>(s, s, n, around);
    else
      return blocked_sum<T>(n, [=](int64_t j) { return s[j] = vector_math::exp_below(s[j] - around); });
  }

  // Takes in scores [rows, n], which become weights relative to the new maximum.
  void take(T* scores, int64_t n) {
    for (int64_t i = 0; i < rows; ++i) {
      T* const s = scores + i * n;
      const T highest = std::max(top[i], largest(s, n));
      const T around = highest == -std::numeric_limits<T>::infinity() ? T(0) : highest;
      const T shrink = top[i] == highest ? T(1) : vector_math::exp(top[i] - around);
      sum[i] = sum[i] * shrink + static_cast<T>(exp_of(s, n, around));
      top[i] = highest;
      if (shrink == T(1)) continue;
      for (int64_t j = 0; j < columns; ++j) out[i * columns + j] *= shrink;
    }
  }

  // lse: of each row. A row that attends to nothing is 0, and its logsumexp +infinity, which makes its weights 0 again.
  void finish(T* lse, bool blank_rows_are_zero) {
    for (int64_t i = 0; i < rows; ++i) {
      const bool blank = sum[i] == T(0) && blank_rows_are_zero;
      const T scale = blank ? T(0) : T(1) / sum[i];
      lse[i] = blank ? std::numeric_limits<T>::infinity() : top[i] + std::log(sum[i]);
      for (int64_t j = 0; j < columns; ++j) out[i * columns + j] *= scale;
    }
  }
};

template <class T>
void forward(const View& y, const View& lse, const Attention& a) {
  const Matrices<T> q(a.q), k(a.k), v(a.v);
  const AttentionMask<T> mask(a.mask, a.causal);
  const DenseOutput<T> out(y);
  const int64_t queries = q.extent(2), keys = k.extent(2), columns = v.extent(1);
  const int64_t tiles = (queries + query_block - 1) / query_block, shared = sharers(a);
  const int64_t cost = query_block * keys * (q.extent(1) + columns);
  parallel_for(batch_dims(a.q.shape).numel() * tiles, grain_of(cost), [&](int64_t begin, int64_t end) {
    const Scratch<T> scores(query_block * key_block);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t index = unit / tiles, first = unit % tiles * query_block;
      const int64_t rows = std::min(query_block, queries - first), reach = mask.reach(first, rows, keys);
      Running<T> running(out.data() + (index * queries + first) * columns, rows, columns);
      for (int64_t key = 0; key < reach; key += key_block) {
        const int64_t n = std::min(key_block, reach - key);
        scores_of(scores.data(), q.rows(index, first, rows), k.rows(index / shared, key, n), static_cast<T>(a.scale),
                  mask, index, first, key);
        running.take(scores.data(), n);
        multiply_add({running.out, rows, columns, columns, 1}, {scores.data(), rows, n, n, 1},
                     v.rows(index / shared, key, n));
      }
      running.finish(lse.as<T>() + index * queries + first, mask.blank_rows_are_zero());
    }
  });
  out.store();
}

// The gradients of one matrix of keys and values, and of those of queries that share it.
template <class T>
struct Backward {
  const Matrices<T>&q, &k, &v, &dy, &y;
  const AttentionMask<T>& mask;
  const T* lse;     // [matrices, queries]
  T *dq, *dk, *dv;  // dense
  T scale;
  int64_t shared;                 // matrices of q to one of k and v
  T *weights, *dweights, *along;  // scratch: [query_block, key_block] twice, [queries]

  // along[i] = sum(dy[i] * y[i]): what the normalisation gives back.
  void sum_along(int64_t index) const {
    for (int64_t i = 0; i < q.extent(2); ++i) {
      const T *const g = dy.rows(index, i, 1).data, *const o = y.rows(index, i, 1).data;
      along[i] = static_cast<T>(blocked_sum<T>(v.extent(1), [=](int64_t j) { return g[j] * o[j]; }));
    }
  }

  void tile(int64_t index, int64_t pair, int64_t query, int64_t rows, int64_t key, int64_t n) const {
    const int64_t queries = q.extent(2), keys = k.extent(2), width = q.extent(1), columns = v.extent(1);
    const auto q_rows = q.rows(index, query, rows), dy_rows = dy.rows(index, query, rows);
    const auto k_rows = k.rows(pair, key, n), v_rows = v.rows(pair, key, n);
    scores_of(weights, q_rows, k_rows, scale, mask, index, query, key);
    for (int64_t i = 0; i < rows; ++i) {
      T* const w = weights + i * n;
      scaled_exp(w, w, n, lse[index * queries + query + i], T(1), T(0));
    }
    multiply_add({dv + (pair * keys + key) * columns, n, columns, columns, 1}, {weights, n, rows, 1, n}, dy_rows);
    multiply_into({dweights, rows, n, n, 1}, dy_rows, transposed(v_rows));
    for (int64_t i = 0; i < rows; ++i) {
      const T *const w = weights + i * n, rest = along[query + i];
      T* const d = dweights + i * n;
      for (int64_t j = 0; j < n; ++j) d[j] = w[j] * (d[j] - rest);
    }
    multiply_add({dq + (index * queries + query) * width, rows, width, width, 1}, {dweights, rows, n, n, 1}, k_rows,
                 scale);
    multiply_add({dk + (pair * keys + key) * width, n, width, width, 1}, {dweights, n, rows, 1, n}, q_rows, scale);
  }

  void run(int64_t pair) const {
    const int64_t keys = k.extent(2), width = q.extent(1), columns = v.extent(1);
    std::fill_n(dk + pair * keys * width, keys * width, T(0));
    std::fill_n(dv + pair * keys * columns, keys * columns, T(0));
    for (int64_t index = pair * shared; index < (pair + 1) * shared; ++index) run(index, pair);
  }

  void run(int64_t index, int64_t pair) const {
    const int64_t queries = q.extent(2), keys = k.extent(2), width = q.extent(1);
    std::fill_n(dq + index * queries * width, queries * width, T(0));
    sum_along(index);
    for (int64_t query = 0; query < queries; query += query_block) {
      const int64_t rows = std::min(query_block, queries - query), reach = mask.reach(query, rows, keys);
      for (int64_t key = 0; key < reach; key += key_block)
        tile(index, pair, query, rows, key, std::min(key_block, reach - key));
    }
  }
};

template <class T>
void backward(const View& dq, const View& dk, const View& dv, const View& dy, const View& y, const View& lse,
              const Attention& a) {
  const Matrices<T> q(a.q), k(a.k), v(a.v), gradient(dy), output(y);
  const AttentionMask<T> mask(a.mask, a.causal);
  const DenseOutput<T> out_q(dq), out_k(dk), out_v(dv);
  const int64_t cost = 2 * sharers(a) * q.extent(2) * k.extent(2) * (q.extent(1) + v.extent(1));
  parallel_for(batch_dims(a.k.shape).numel(), grain_of(cost), [&](int64_t begin, int64_t end) {
    const Scratch<T> weights(query_block * key_block), dweights(query_block * key_block), along(q.extent(2));
    const Backward<T> work{q,
                           k,
                           v,
                           gradient,
                           output,
                           mask,
                           lse.as<T>(),
                           out_q.data(),
                           out_k.data(),
                           out_v.data(),
                           static_cast<T>(a.scale),
                           sharers(a),
                           weights.data(),
                           dweights.data(),
                           along.data()};
    for (int64_t pair = begin; pair < end; ++pair) work.run(pair);
  });
  out_q.store();
  out_k.store();
  out_v.store();
}

}  // namespace

void Cpu::attention(const View& y, const View& lse, const Attention& a) {
  if (lse.dtype == f64)
    forward<double>(y, lse, a);
  else
    forward<float>(y, lse, a);
}

void Cpu::attention_grad(const View& dq, const View& dk, const View& dv, const View& dy, const View& y, const View& lse,
                         const Attention& a) {
  if (lse.dtype == f64)
    backward<double>(dq, dk, dv, dy, y, lse, a);
  else
    backward<float>(dq, dk, dv, dy, y, lse, a);
}

}  // namespace loom
