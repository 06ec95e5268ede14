// Attention in blocks of queries and keys with a running maximum and sum (Dao et al. 2022), and its gradient, which
// computes the scores again from the logsumexp of each row.
#include <cmath>

#include <loom/accelerators/cpu/attention.h>
#include <loom/accelerators/cpu/attention_rows.h>
#include <loom/accelerators/cpu/attention_tile.h>
#include <loom/accelerators/threads.h>

namespace loom {
using namespace cpu;

namespace {

// Queries of one matrix on their way through the keys, a block of these at a time.
template <class T>
class Forward {
  static constexpr int64_t key_block = 256, few_rows = 1;  // with these, packing the keys does not pay

 public:
  Forward(const Matrices<T>& q, const Matrices<T>& k, const Matrices<T>& v, const AttentionMask<T>& mask, T scale)
      : q_(q), k_(k), v_(v), mask_(mask), scale_(scale) {}

  // y [rows, columns] and lse [rows] of `rows` <= query_block queries from `first` on, with the keys of matrix `pair`.
  void run(const MatrixRef<T>& y, T* lse, int64_t index, int64_t pair, int64_t first, int64_t rows) {
    std::fill_n(top_, rows, -std::numeric_limits<T>::infinity());
    std::fill_n(sum_, rows, T(0));
    const int64_t keys = k_.extent(2), reach = mask_.reach(first, rows, keys);
    for (int64_t key = 0; key < reach; key += key_block) {
      const int64_t n = std::min(key_block, reach - key);
      if (rows > few_rows) keys_.take(transposed(k_.rows(pair, key, n)));
      values_.take(v_.rows(pair, key, n), rows);
      for_each_block(rows, [&](int64_t row, int64_t count) {
        const int64_t end = mask_.reach(first + row, count, keys);
        if (key < end) block(y, index, pair, first, row, count, key, std::min(n, end - key), key + n >= end);
      });
    }
    for (int64_t i = 0; i < rows; ++i)
      lse[i] = blank(i) ? std::numeric_limits<T>::infinity() : top_[i] + vector_math::log(sum_[i]);
  }

 private:
  // Rows that attend to nothing are 0, and their logsumexp +infinity, which makes their weights 0 again.
  bool blank(int64_t row) const { return sum_[row] == T(0) && mask_.blank_rows_are_zero(); }

  // last: these rows attend to no keys after these.
  void block(const MatrixRef<T>& y, int64_t index, int64_t pair, int64_t first, int64_t row, int64_t count, int64_t key,
             int64_t n, bool last) {
    T* const scores = weights_.data();
    score(scores, q_.rows(index, first + row, count), k_.rows(pair, key, n));
    mask_.apply(scores, key_block, index, first + row, count, key, n);
    T alpha[tile_rows], from[tile_rows];
    for (int64_t i = 0; i < count; ++i) {
      from[i] = take(scores + i * key_block, row + i, mask_.counted(first + row + i, key, n), whole_vectors<T>(n));
      alpha[i] = !last ? T(1) : blank(row + i) ? T(0) : T(1) / sum_[row + i];
      from[i] *= alpha[i];
    }
    multiply_rows(y.data + row * y.row_stride, y.row_stride, count, columns_, {scores, key_block, 1}, n, values_, 0,
                  {alpha, key == 0 ? nullptr : from, 1});
  }

  void score(T* scores, const MatrixRef<const T>& q, const MatrixRef<const T>& k) const {
    if (q.rows > few_rows)
      return multiply_rows(scores, key_block, q.rows, whole_vectors<T>(k.rows), {q.data, q.row_stride, 1}, width_,
                           keys_, 0, {&scale_, nullptr});
    for (int64_t i = 0; i < q.rows; ++i)
      for (int64_t j = 0; j < k.rows; ++j)
        scores[i * key_block + j] = scale_ * dot_of_rows(q.data + i * q.row_stride, k.data + j * k.row_stride, width_);
  }

  // Scores become weights relative to the row's new maximum; what those before them shrink by.
  T take(T* scores, int64_t row, int64_t counted, int64_t end) {
    const T highest = std::max(top_[row], largest_counted(scores, counted));
    const T around = highest == -std::numeric_limits<T>::infinity() ? T(0) : highest;
    const T shrink = top_[row] == highest ? T(1) : vector_math::exp_below(top_[row] - around);
    sum_[row] = sum_[row] * shrink + exp_counted(scores, counted, end, around);
    top_[row] = highest;
    return shrink;
  }

  const Matrices<T>&q_, &k_, &v_;
  const AttentionMask<T>& mask_;
  T scale_;
  int64_t width_ = q_.extent(1), columns_ = v_.extent(1);
  RightFactor<T> keys_{width_, key_block}, values_{key_block, columns_};  // keys transposed
  Scratch<T> weights_{tile_rows * key_block};
  T top_[query_block], sum_[query_block];
};

template <class T>
void forward(const View& y, const View& lse, const Attention& a) {
  const Matrices<T> q(a.q), k(a.k), v(a.v);
  const AttentionMask<T> mask(a.mask, a.causal);
  const RowOutput<T> out(y);
  const int64_t queries = q.extent(2);
  const int64_t blocks = (queries + query_block - 1) / query_block, shared = sharers(a);
  const int64_t cost = std::min(query_block, queries) * k.extent(2) * (q.extent(1) + v.extent(1));
  parallel_for(batch_dims(a.q.shape).numel() * blocks, grain_of(cost), [&](int64_t begin, int64_t end) {
    Forward<T> work(q, k, v, mask, static_cast<T>(a.scale));
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t index = unit / blocks, first = unit % blocks * query_block, at = index * queries + first;
      work.run(out.rows(index, first), lse.as<T>() + at, index, index / shared, first,
               std::min(query_block, queries - first));
    }
  });
  out.store();
}

// The gradients of one matrix of keys and values, and of those of queries that share it.
template <class T>
struct Backward {
  static constexpr int64_t key_block = 128, row = key_block + whole_vectors<T>(1);  // apart, in different cache sets

  const Matrices<T>&q, &k, &v, &dy, &y;
  const AttentionMask<T>& mask;
  const T* lse;  // [matrices, queries]
  const RowOutput<T>&dq, &dk, &dv;
  T scale;
  int64_t shared;  // matrices of q to one of k and v
  int64_t queries = q.extent(2), keys = k.extent(2), width = q.extent(1), columns = v.extent(1);
  Scratch<T> weights{query_block * row}, dweights{query_block * row};
  Scratch<T> along{shared * queries};  // sum(dy[i] * y[i]): what the normalisation gives back
  RightFactor<T> turned_keys{width, key_block}, turned_values{columns, key_block}, all_keys{key_block, width},
      q_panels{query_block, width}, dy_panels{query_block, columns};

  void run(int64_t pair) {
    for (int64_t i = 0; i < shared; ++i) sum_along(along.data() + i * queries, pair * shared + i);
    for (int64_t key = 0; key < keys; key += key_block) {
      const int64_t n = std::min(key_block, keys - key);
      turned_keys.take(transposed(k.rows(pair, key, n)));
      turned_values.take(transposed(v.rows(pair, key, n)));
      all_keys.take(k.rows(pair, key, n));
      bool first = true;  // nothing has been written to these rows of dk and dv
      for (int64_t index = pair * shared; index < (pair + 1) * shared; ++index)
        for (int64_t query = 0; query < queries; query += query_block) {
          const int64_t count = std::min(query_block, queries - query);
          if (mask.reach(query, count, keys) <= key) continue;
          for_each_block(count, [&](int64_t i, int64_t rows) { of_queries(index, pair, query, i, rows, key, n); });
          q_panels.take(q.rows(index, query, count));
          dy_panels.take(dy.rows(index, query, count));
          for_each_block(n, [&](int64_t j, int64_t rows) { of_keys(pair, query, count, key, j, rows, first); });
          first = false;
        }
      if (!first) continue;
      for (const RowOutput<T>* const d : {&dk, &dv}) {
        const MatrixRef<T> rows = d->rows(pair, key);
        for (int64_t j = 0; j < n; ++j) std::fill_n(rows.data + j * rows.row_stride, rows.columns, T(0));
      }
    }
  }

  void sum_along(T* sums, int64_t index) const {
    const auto g = dy.rows(index, 0, queries), o = y.rows(index, 0, queries);
    for (int64_t i = 0; i < queries; ++i)
      sums[i] = dot_of_rows(g.data + i * g.row_stride, o.data + i * o.row_stride, columns);
  }

  // Weights and the gradients of scores of `rows` queries, and with them the gradients of the queries.
  void of_queries(int64_t index, int64_t pair, int64_t query, int64_t i, int64_t rows, int64_t key, int64_t n) const {
    const int64_t counted = std::min(n, mask.reach(query + i, rows, keys) - key), vectors = whole_vectors<T>(counted);
    if (counted <= 0) return;
    T *const w = weights.data() + i * row, *const d = dweights.data() + i * row;
    const auto left = [](const MatrixRef<const T>& m) { return LeftFactor<T>{m.data, m.row_stride, 1}; };
    multiply_rows(w, row, rows, vectors, left(q.rows(index, query + i, rows)), width, turned_keys, 0,
                  {&scale, nullptr});
    mask.apply(w, row, index, query + i, rows, key, counted);
    multiply_rows(d, row, rows, vectors, left(dy.rows(index, query + i, rows)), columns, turned_values, 0,
                  {&one, nullptr});
    const int64_t end = whole_vectors<T>(std::min<int64_t>(n, counted + tile_rows));  // as far as of_keys() reads
    for (int64_t r = 0; r < rows; ++r)
      gradient_counted(w + r * row, d + r * row, mask.counted(query + i + r, key, counted), end,
                       lse[index * queries + query + i + r],
                       along.data()[(index - pair * shared) * queries + query + i + r]);
    const MatrixRef<T> to = dq.rows(index, query + i);
    multiply_rows(to.data, to.row_stride, rows, width, {d, row, 1}, counted, all_keys, 0,
                  {&scale, key == 0 ? nullptr : &one});
  }

  // What `count` queries add to the gradients of `rows` keys and values.
  void of_keys(int64_t pair, int64_t query, int64_t count, int64_t key, int64_t j, int64_t rows, bool first) const {
    const int64_t i = mask.first_query(key + j, query, count);
    const T* const from = first ? nullptr : &one;
    const MatrixRef<T> to_keys = dk.rows(pair, key + j), to_values = dv.rows(pair, key + j);
    multiply_rows(to_values.data, to_values.row_stride, rows, columns, {weights.data() + i * row + j, 1, row},
                  count - i, dy_panels, i, {&one, from});
    multiply_rows(to_keys.data, to_keys.row_stride, rows, width, {dweights.data() + i * row + j, 1, row}, count - i,
                  q_panels, i, {&scale, from});
  }

  static constexpr T one = 1;
};

template <class T>
void backward(const View& dq, const View& dk, const View& dv, const View& dy, const View& y, const View& lse,
              const Attention& a) {
  const Matrices<T> q(a.q), k(a.k), v(a.v), gradient(dy), output(y);
  const AttentionMask<T> mask(a.mask, a.causal);
  const RowOutput<T> out_q(dq), out_k(dk), out_v(dv);
  const int64_t cost = 2 * sharers(a) * q.extent(2) * k.extent(2) * (q.extent(1) + v.extent(1));
  parallel_for(batch_dims(a.k.shape).numel(), grain_of(cost), [&](int64_t begin, int64_t end) {
    Backward<T> work{q,         k, v, gradient, output, mask, lse.as<T>(), out_q, out_k, out_v, static_cast<T>(a.scale),
                     sharers(a)};
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
