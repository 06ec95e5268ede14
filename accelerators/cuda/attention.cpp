// Attention: by cuDNN where it takes it, else as two matrix products around a softmax, heads and rows at a time, so
// that scores take little memory.
#include <algorithm>
#include <optional>

#include <loom/accelerators/cuda/attention_rows.h>
#include <loom/accelerators/cuda/cuda.h>
#include <loom/accelerators/cuda/dnn_attention.h>
#include <loom/accelerators/cuda/matrices.h>
#include <loom/accelerators/cuda/scratch.h>

namespace loom {

namespace {

using cuda::Matrices;
using cuda::ScoreBlock;
using cuda::Scratch;
using Use = Matrices::Use;

// Bytes that the scores of one piece of work may take, in the type that sums are in.
int64_t most_score_bytes(const cuda::Gpu& gpu) {
  return std::clamp<int64_t>(static_cast<int64_t>(gpu.properties().totalGlobalMem / 256), 1 << 14, 256 << 20);
}

// How many of q's heads share one of k and v.
int64_t sharers(const Attention& a) {
  const int heads = a.q.rank() - 3;
  return heads < 0 || a.k.numel() == 0 || a.q.numel() == 0 ? 1 : a.q.shape[heads] / a.k.shape[heads];
}

// Of x with its heads in dimension d: those that meet all heads of k and v once, as the `first` of their sharers.
View every(View x, int d, int64_t first, int64_t count) {
  if (count == 1 || x.data == nullptr) return x;
  x.data = x.as<char>() + first * x.strides[d] * static_cast<int64_t>(item_size(x.dtype));
  x.shape[d] /= count;
  x.strides[d] *= count;
  return x;
}
View every(const View& x, const Attention& a, int64_t first) { return every(x, a.q.rank() - 3, first, sharers(a)); }
Attention every(const Attention& a, int64_t first) {
  Attention out = a;
  out.q = every(a.q, a, first);
  out.mask = every(a.mask, a, first);
  return out;
}

// lse of the same heads, dense.
class Logsumexp {
 public:
  Logsumexp(Cuda& accelerator, cuda::Gpu& gpu, const View& lse, const Attention& a, int64_t first, Use use)
      : accelerator_(accelerator), part_(every(lse, a, first)), view_(part_) {
    if (sharers(a) == 1) return;
    copy_ = Scratch(gpu, part_.bytes());
    view_ = view_over(copy_.as<void>(), lse.dtype, part_.shape, lse.device);
    if (use == Use::read) accelerator.copy(view_, part_);
  }
  const View& view() const { return view_; }
  void store() const {
    if (copy_.as<void>() != nullptr) accelerator_.copy(part_, view_);
  }

 private:
  Cuda& accelerator_;
  View part_, view_;
  Scratch copy_;
};

View turned(View x) {
  std::swap(x.shape[1], x.shape[2]);
  std::swap(x.strides[1], x.strides[2]);
  return x;
}

// What forward and backward share: the operands, and how the work is cut into blocks of scores.
class Scores {
 public:
  Scores(Cuda& accelerator, cuda::Gpu& gpu, const Attention& a, DType sum_type)
      : accelerator_(accelerator),
        a_(a),
        q_(accelerator, gpu, a.q, Use::read),
        k_(accelerator, gpu, a.k, Use::read),
        v_(accelerator, gpu, a.v, Use::read),
        mask_(a.mask) {
    const int64_t most = most_score_bytes(gpu) / static_cast<int64_t>(item_size(sum_type));
    rows_ = std::clamp<int64_t>(most / std::max<int64_t>(keys(), 1), 1, std::max<int64_t>(queries(), 1));
    count_ = rows_ < queries() ? 1
                               : std::clamp<int64_t>(most / std::max<int64_t>(queries() * keys(), 1), 1,
                                                     std::max<int64_t>(matrices(), 1));
  }

  int64_t matrices() const { return q_.view().shape[0]; }
  int64_t queries() const { return q_.view().shape[1]; }
  int64_t keys() const { return k_.view().shape[1]; }
  bool takes_all_rows() const { return rows_ >= queries(); }
  int64_t most_scores() const { return count_ * rows_ * keys(); }

  // Calls f(ScoreBlock) for all scores that count; causal rows meet no more keys than they may attend to.
  template <class F>
  void for_each_block(const F& f) const {
    for (int64_t first = 0; first < matrices(); first += count_)
      for (int64_t query = 0; query < queries(); query += rows_) {
        const int64_t rows = std::min(rows_, queries() - query);
        f(ScoreBlock{.first = first,
                     .matrices = std::min(count_, matrices() - first),
                     .query = query,
                     .rows = rows,
                     .keys = a_.causal ? std::min(keys(), query + rows) : keys(),
                     .queries = queries(),
                     .causal = a_.causal,
                     .mask = mask_});
      }
  }

  View over(const Scratch& memory, DType dtype, const ScoreBlock& b) const {
    return view_over(memory.as<void>(), dtype, {b.matrices, b.rows, b.keys}, a_.q.device);
  }
  View queries_of(const Matrices& x, const ScoreBlock& b) const { return x.part(b.first, b.matrices, b.query, b.rows); }
  View keys_of(const Matrices& x, const ScoreBlock& b) const { return x.part(b.first, b.matrices, 0, b.keys); }
  View q(const ScoreBlock& b) const { return queries_of(q_, b); }
  View k(const ScoreBlock& b) const { return keys_of(k_, b); }
  View v(const ScoreBlock& b) const { return keys_of(v_, b); }

  void scores(const View& out, const ScoreBlock& b) const {
    accelerator_.gemm({.c = out, .a = q(b), .b = turned(k(b)), .bias = {}, .alpha = a_.scale});
  }

 private:
  Cuda& accelerator_;
  const Attention& a_;
  Matrices q_, k_, v_;
  cuda::ScoreMask mask_;
  int64_t rows_ = 1, count_ = 1;
};

// A gradient that blocks of rows add to: of 16 bits in f32 until it is whole.
class Sum {
 public:
  Sum(Cuda& accelerator, cuda::Gpu& gpu, const View& out, bool in_parts)
      : accelerator_(accelerator), target_(out), in_parts_(in_parts) {
    if (in_parts && is_half(out.dtype)) {
      wide_ = Scratch(gpu, static_cast<size_t>(out.numel()) * sizeof(float));
      target_ = view_over(wide_.as<void>(), DType::f32, out.shape, out.device);
    }
    matrices_.emplace(accelerator, gpu, target_, Use::write);
    out_ = out;
    if (in_parts) accelerator.fill(matrices_->view(), 0.0);
  }
  const Matrices& matrices() const { return *matrices_; }
  double beta() const { return in_parts_ ? 1 : 0; }
  void store() const {
    matrices_->store();
    if (wide_.as<void>() != nullptr) accelerator_.copy(out_, target_);
  }

 private:
  Cuda& accelerator_;
  View out_, target_;
  bool in_parts_;
  Scratch wide_;
  std::optional<Matrices> matrices_;
};

void forward(Cuda& accelerator, cuda::Gpu& gpu, const View& y, const View& lse, const Attention& a) {
  const Scores s(accelerator, gpu, a, lse.dtype);
  const Matrices out(accelerator, gpu, y, Use::write);
  const auto count = static_cast<size_t>(s.most_scores());
  const Scratch scores(gpu, count * item_size(lse.dtype));
  const Scratch narrow(gpu, is_half(a.q.dtype) ? count * item_size(a.q.dtype) : 0);
  const Scratch& weights = is_half(a.q.dtype) ? narrow : scores;
  s.for_each_block([&](const ScoreBlock& b) {
    s.scores(s.over(scores, lse.dtype, b), b);
    cuda::softmax_scores(gpu, weights.as<void>(), a.q.dtype, lse, scores.as<void>(), b);
    accelerator.gemm({.c = s.queries_of(out, b), .a = s.over(weights, a.q.dtype, b), .b = s.v(b), .bias = {}});
  });
  out.store();
}

// Adds to out_k and out_v, if they are in parts.
void backward(Cuda& accelerator, cuda::Gpu& gpu, const View& dq, const Sum& out_k, const Sum& out_v, const View& dy,
              const View& y, const View& lse, const Scores& s, const Attention& a) {
  const Matrices gradient(accelerator, gpu, dy, Use::read), output(accelerator, gpu, y, Use::read);
  const Matrices out_q(accelerator, gpu, dq, Use::write);
  const auto count = static_cast<size_t>(s.most_scores());
  const size_t item = item_size(lse.dtype), half = is_half(a.q.dtype) ? item_size(a.q.dtype) : 0;
  const Scratch scores(gpu, count * item), dweights(gpu, count * item),
      along(gpu, static_cast<size_t>(lse.numel()) * item);
  const Scratch narrow(gpu, count * half), narrow_grad(gpu, count * half);
  const Scratch &weights = half > 0 ? narrow : scores, &dscores = half > 0 ? narrow_grad : dweights;
  if (lse.numel() > 0) cuda::row_products(gpu, along.as<void>(), gradient.view(), output.view());
  s.for_each_block([&](const ScoreBlock& b) {
    s.scores(s.over(scores, lse.dtype, b), b);
    const View g = s.queries_of(gradient, b), w = s.over(weights, a.q.dtype, b), d = s.over(dscores, a.q.dtype, b);
    accelerator.gemm({.c = s.over(dweights, lse.dtype, b), .a = g, .b = turned(s.v(b)), .bias = {}});
    if (b.keys > 0)
      cuda::softmax_scores_grad(gpu, weights.as<void>(), dscores.as<void>(), a.q.dtype, scores.as<void>(),
                                dweights.as<void>(), lse, along.as<void>(), b);
    accelerator.gemm({.c = s.keys_of(out_v.matrices(), b), .a = turned(w), .b = g, .bias = {}, .beta = out_v.beta()});
    accelerator.gemm({.c = s.queries_of(out_q, b), .a = d, .b = s.k(b), .bias = {}, .alpha = a.scale});
    accelerator.gemm({.c = s.keys_of(out_k.matrices(), b),
                      .a = turned(d),
                      .b = s.q(b),
                      .bias = {},
                      .alpha = a.scale,
                      .beta = out_k.beta()});
  });
  out_q.store();
}

}  // namespace

void Cuda::attention(const View& y, const View& lse, const Attention& a) {
  if (cuda::attention_by_dnn(*this, gpu_, y, lse, a)) return;
  for (int64_t i = 0; i < sharers(a); ++i) {
    const Logsumexp rows(*this, gpu_, lse, a, i, Use::write);
    forward(*this, gpu_, every(y, a, i), rows.view(), every(a, i));
    rows.store();
  }
}

void Cuda::attention_grad(const View& dq, const View& dk, const View& dv, const View& dy, const View& y,
                          const View& lse, const Attention& a) {
  if (cuda::attention_grad_by_dnn(*this, gpu_, dq, dk, dv, dy, y, lse, a)) return;
  std::optional<Sum> out_k, out_v;
  for (int64_t i = 0; i < sharers(a); ++i) {
    const Attention part = every(a, i);
    const Scores s(*this, gpu_, part, lse.dtype);
    if (!out_k) {
      // Keys that one block does not cover are summed over blocks, or get nothing at all.
      const bool causal_rest = a.causal && s.queries() < s.keys();
      const bool in_parts = sharers(a) > 1 || !s.takes_all_rows() || s.queries() == 0 || causal_rest;
      out_k.emplace(*this, gpu_, dk, in_parts);
      out_v.emplace(*this, gpu_, dv, in_parts);
    }
    const Logsumexp rows(*this, gpu_, lse, a, i, Use::read);
    backward(*this, gpu_, every(dq, a, i), *out_k, *out_v, every(dy, a, i), every(y, a, i), rows.view(), s, part);
  }
  out_k->store();
  out_v->store();
}

}  // namespace loom
