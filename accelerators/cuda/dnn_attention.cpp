#include <loom/accelerators/cuda/dnn_attention.h>

#include <vector>

#include <loom/accelerators/cuda/attention_graph.h>
#include <loom/accelerators/cuda/attention_mask.h>
#include <loom/accelerators/cuda/dnn.h>
#include <loom/accelerators/cuda/dnn_operand.h>
#include <loom/accelerators/cuda/precision.h>

namespace loom::cuda {

namespace {

constexpr size_t first_right_version = 91501;  // before it, lengths that 128 does not divide could go wrong
constexpr int64_t granule = 8;                 // elements that kernels move at once
constexpr int64_t mask_granule = 4;            // of a mask's row, 16 bytes

// What the fused kernels take: 16 bits, one or two leading dimensions, more than one score a head; architectures whose
// deterministic gradient has been asked of the library.
bool is_taken(const Gpu& gpu, const Attention& a, const View& lse) {
  const int rank = a.q.rank();
  return dnn_version() >= first_right_version && gpu.properties().major >= 8 && gpu.properties().major < 10 &&
         is_half(a.q.dtype) && rank <= 4 && a.q.numel() > 0 && a.k.numel() > 0 && a.v.numel() > 0 &&
         a.q.shape[rank - 2] * a.k.shape[rank - 2] > 1 && a.q.shape.back() % granule == 0 &&
         a.v.shape.back() % granule == 0 && is_aligned(lse.data);
}

// As [batch, heads, length, width].
View with_heads(View x) {
  while (x.rank() < 4) {
    x.shape.insert(0, 1);
    x.strides.insert(0, 0);
  }
  return x;
}

bool lies_well(const View& x) {
  for (int d = 0; d < 3; ++d)
    if (x.shape[d] != 1 && (x.strides[d] <= 0 || x.strides[d] % granule != 0)) return false;
  return x.strides[3] == 1 || x.shape[3] == 1;
}

Dims dense_strides(const View& x) { return row_major_strides(with_heads(x).shape); }

// Strides as the library sees them; those of extents of 1 mean nothing, and are given as if they did.
Dims seen_strides(const View& given) {
  const View x = with_heads(given);
  Dims out = row_major_strides(x.shape);
  if (!lies_well(x)) return out;
  for (int d = 0; d < 4; ++d)
    if (x.shape[d] != 1) out[d] = x.strides[d];
  return out;
}

// A mask once, where it is repeated over the batch, heads or queries.
View folded(const View& mask) {
  View x = with_heads(mask);
  for (int d = 0; d < 3; ++d)
    if (x.strides[d] == 0) x.shape[d] = 1;
  return x;
}

// As it is copied for the library: rows on 16-byte boundaries.
View bias_of(const View& mask, void* memory) {
  View out = view_over(memory, DType::f32, folded(mask).shape, mask.device);
  const int64_t row = (out.shape[3] + mask_granule - 1) / mask_granule * mask_granule;
  out.strides = {out.shape[1] * out.shape[2] * row, out.shape[2] * row, row, 1};
  return out;
}

void describe_mask(AttentionCall& call, const View& mask) {
  const View bias = bias_of(mask, nullptr);
  call.mask = bias.shape;
  call.mask_strides = bias.strides;
  if (bias.shape[2] == call.queries) return;
  call.mask[2] = call.queries;  // one row for all: the library is told so by its stride
  call.mask_strides[2] = 0;
}

AttentionCall call_of(const Attention& a, const View& y, double keep) {
  const View q = with_heads(a.q), v = with_heads(a.v);
  AttentionCall out{.dtype = a.q.dtype,
                    .batch = q.shape[0],
                    .heads = q.shape[1],
                    .key_heads = v.shape[1],
                    .queries = q.shape[2],
                    .keys = v.shape[2],
                    .width = q.shape[3],
                    .columns = v.shape[3],
                    .q = seen_strides(a.q),
                    .k = seen_strides(a.k),
                    .v = seen_strides(a.v),
                    .y = seen_strides(y),
                    .scale = static_cast<float>(a.scale),
                    .causal = a.causal,
                    .keep = keep};
  if (a.mask.data != nullptr) describe_mask(out, a.mask);
  return out;
}

// Where weights are dropped gradients are dense, so that the plan can be asked for before they are known.
AttentionCall grad_call_of(const Attention& a, const View& y, double keep) {
  AttentionCall out = call_of(a, y, keep);
  out.dq = dense_strides(a.q);
  out.dk = dense_strides(a.k);
  out.dv = dense_strides(a.v);
  out.dy = dense_strides(y);
  out.any_order = allows_any_order();
  return out;
}

std::string key_of(const AttentionCall& c, bool gradient) {
  std::string key = gradient ? "attention_grad" : "attention";
  append_key(key, c.dtype);
  for (const int64_t n : {c.batch, c.heads, c.key_heads, c.queries, c.keys, c.width, c.columns}) append_key(key, n);
  for (const Dims* d : {&c.q, &c.k, &c.v, &c.y, &c.dq, &c.dk, &c.dv, &c.dy, &c.mask, &c.mask_strides})
    append_key(key, *d);
  append_key(key, c.scale);
  append_key(key, c.keep);
  append_key(key, c.causal);
  append_key(key, c.any_order);
  return key;
}

PlanUse plan_of(Gpu& gpu, const AttentionCall& call) {
  return {gpu, key_of(call, false), {}, [&] { return attention_graph(call); }};
}
PlanUse grad_plan_of(Gpu& gpu, const AttentionCall& call) {
  // The form whose bits are the same each time keeps gradients of all scores.
  const DnnRules rules{.any_order = call.any_order,
                       .most_workspace = static_cast<int64_t>(gpu.properties().totalGlobalMem / 8)};
  return {gpu, key_of(call, true), rules, [&] { return attention_grad_graph(call); }};
}

// What a plan is run on, in the order of its graph, which begins with the operands.
class Arrays {
 public:
  Arrays(Accelerator& accelerator, Gpu& gpu, const Attention& a, const AttentionCall& call)
      : accelerator_(accelerator), gpu_(gpu) {
    read_.reserve(most);
    written_.reserve(most);
    room_.reserve(most);
    read(a.q, call.q);
    read(a.k, call.k);
    read(a.v, call.v);
  }
  void read(const View& x, const Dims& strides) { add(read_, x, strides, DnnOperand::Use::read); }
  void write(const View& x, const Dims& strides) { add(written_, x, strides, DnnOperand::Use::write); }
  void take(void* memory) { all_.push_back(memory); }
  void* room(size_t bytes) { return all_.emplace_back(room_.emplace_back(gpu_, bytes).as<void>()); }
  void weigh(const View& mask, const AttentionDropout& d) {
    if (mask.data != nullptr) add_mask(mask);
    if (d.keep == 1) return;
    take(d.words.as<int64_t>());
    take(d.words.as<int64_t>() + 2);  // on a 16-byte boundary too
  }
  void run(const PlanUse& plan) const {
    plan.run(all_);
    for (const DnnOperand& x : written_) x.store();
  }

 private:
  static constexpr size_t most = 8;
  void add(std::vector<DnnOperand>& list, const View& given, const Dims& strides, DnnOperand::Use use) {
    const View x = with_heads(given);
    const bool fits = lies_well(x) && seen_strides(x) == strides;
    all_.push_back(list.emplace_back(accelerator_, gpu_, x, fits, strides, use).data());
  }
  void add_mask(const View& mask) {
    const View bias = bias_of(mask, nullptr);
    void* const memory = room(static_cast<size_t>(bias.shape[0] * bias.strides[0]) * sizeof(float));
    write_bias(gpu_, bias_of(mask, memory), folded(mask));
  }

  Accelerator& accelerator_;
  Gpu& gpu_;
  std::vector<DnnOperand> read_, written_;
  std::vector<Scratch> room_;
  std::vector<void*> all_;
};

void run_forward(Accelerator& accelerator, Gpu& gpu, const PlanUse& plan, const AttentionCall& call, const View& y,
                 const View& lse, const Attention& a, const AttentionDropout& d) {
  Arrays arrays(accelerator, gpu, a, call);
  arrays.write(y, call.y);
  arrays.take(lse.data);
  arrays.weigh(a.mask, d);
  arrays.run(plan);
  if (a.mask.data != nullptr) mend_hidden_rows(gpu, with_heads(y), lse, a.mask.dtype == DType::boolean);
}

struct Gradients {
  const View &dq, &dk, &dv, &dy;
};

void run_backward(Accelerator& accelerator, Gpu& gpu, const PlanUse& plan, const AttentionCall& call,
                  const Gradients& g, const View& y, const View& lse, const Attention& a, const AttentionDropout& d) {
  Arrays arrays(accelerator, gpu, a, call);
  arrays.read(y, call.y);
  arrays.take(lse.data);
  arrays.read(g.dy, call.dy);
  arrays.write(g.dq, call.dq);
  arrays.write(g.dk, call.dk);
  arrays.write(g.dv, call.dv);
  arrays.weigh(a.mask, d);
  arrays.room(static_cast<size_t>(lse.numel()) * sizeof(float));
  if (call.any_order) arrays.room(static_cast<size_t>(g.dq.numel()) * sizeof(float));
  arrays.run(plan);
}

}  // namespace

bool attention_by_dnn(Cuda& accelerator, Gpu& gpu, const View& y, const View& lse, const Attention& a) {
  if (!is_taken(gpu, a, lse)) return false;
  const AttentionCall call = call_of(a, y, 1);
  const PlanUse plan = plan_of(gpu, call);
  if (plan) run_forward(accelerator, gpu, plan, call, y, lse, a, {});
  return static_cast<bool>(plan);
}

bool attention_grad_by_dnn(Cuda& accelerator, Gpu& gpu, const View& dq, const View& dk, const View& dv, const View& dy,
                           const View& y, const View& lse, const Attention& a) {
  if (!is_taken(gpu, a, lse)) return false;
  AttentionCall call = grad_call_of(a, y, 1);
  call.dq = seen_strides(dq);
  call.dk = seen_strides(dk);
  call.dv = seen_strides(dv);
  call.dy = seen_strides(dy);
  const PlanUse plan = grad_plan_of(gpu, call);
  if (plan) run_backward(accelerator, gpu, plan, call, {dq, dk, dv, dy}, y, lse, a, {});
  return static_cast<bool>(plan);
}

}  // namespace loom::cuda

namespace loom {

using namespace cuda;

bool CudaFused::drops_in_attention(const View& y, const View& lse, const Attention& a, double keep) {
  if (!is_taken(gpu_, a, lse) || !plan_of(gpu_, call_of(a, y, keep))) return false;
  return static_cast<bool>(grad_plan_of(gpu_, grad_call_of(a, y, keep)));
}

void CudaFused::attention_dropout(const View& y, const View& lse, const Attention& a, const AttentionDropout& d) {
  const AttentionCall call = call_of(a, y, d.keep);
  const PlanUse plan = plan_of(gpu_, call);
  check(static_cast<bool>(plan), "attention: cuDNN has no kernel that drops weights");
  run_forward(kernels_, gpu_, plan, call, y, lse, a, d);
}

void CudaFused::attention_dropout_grad(const View& dq, const View& dk, const View& dv, const View& dy, const View& y,
                                       const View& lse, const Attention& a, const AttentionDropout& d) {
  const AttentionCall call = grad_call_of(a, y, d.keep);
  const PlanUse plan = grad_plan_of(gpu_, call);
  check(static_cast<bool>(plan),
        "attention: cuDNN has no kernel for the gradient, of which there was one when weights were dropped; is the "
        "order of sums (LOOM_DETERMINISTIC) the same?");
  run_backward(kernels_, gpu_, plan, call, {dq, dk, dv, dy}, y, lse, a, d);
}

}  // namespace loom
