#include <loom/accelerators/cuda/dnn_attention.h>

#include <loom/accelerators/cuda/attention_graph.h>
#include <loom/accelerators/cuda/dnn.h>
#include <loom/accelerators/cuda/dnn_operand.h>
#include <loom/accelerators/cuda/precision.h>

namespace loom::cuda {

namespace {

constexpr size_t first_right_version = 91501;  // before it, lengths that 128 does not divide could go wrong
constexpr int64_t granule = 8;                 // elements that kernels move at once

// What the fused kernels take: 16 bits, no mask, one or two leading dimensions; architectures whose deterministic
// gradient has been asked of the library.
bool is_taken(const Gpu& gpu, const Attention& a) {
  return dnn_version() >= first_right_version && gpu.properties().major >= 8 && gpu.properties().major < 10 &&
         is_half(a.q.dtype) && a.mask.data == nullptr && a.q.rank() <= 4 && a.q.numel() > 0 && a.k.numel() > 0 &&
         a.v.numel() > 0 && a.q.shape.back() % granule == 0 && a.v.shape.back() % granule == 0;
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

// Strides as the library sees them; those of extents of 1 mean nothing, and are given as if they did.
Dims seen_strides(const View& x) {
  Dims out = row_major_strides(x.shape);
  if (!lies_well(x)) return out;
  for (int d = 0; d < 4; ++d)
    if (x.shape[d] != 1) out[d] = x.strides[d];
  return out;
}

AttentionCall call_of(const Attention& a, const View& y) {
  const View q = with_heads(a.q), v = with_heads(a.v);
  return {.dtype = a.q.dtype,
          .batch = q.shape[0],
          .heads = q.shape[1],
          .queries = q.shape[2],
          .keys = v.shape[2],
          .width = q.shape[3],
          .columns = v.shape[3],
          .q = seen_strides(q),
          .k = seen_strides(with_heads(a.k)),
          .v = seen_strides(v),
          .y = seen_strides(with_heads(y)),
          .scale = static_cast<float>(a.scale),
          .causal = a.causal};
}

std::string key_of(const AttentionCall& c, bool gradient) {
  std::string key = gradient ? "attention_grad" : "attention";
  append_key(key, c.dtype);
  for (const int64_t n : {c.batch, c.heads, c.queries, c.keys, c.width, c.columns}) append_key(key, n);
  for (const Dims* d : {&c.q, &c.k, &c.v, &c.y, &c.dq, &c.dk, &c.dv, &c.dy}) append_key(key, *d);
  append_key(key, c.scale);
  append_key(key, c.causal);
  append_key(key, c.any_order);
  return key;
}

DnnOperand operand(Cuda& accelerator, Gpu& gpu, const View& given, DnnOperand::Use use) {
  const View x = with_heads(given);
  return {accelerator, gpu, x, lies_well(x), seen_strides(x), use};
}

}  // namespace

bool attention_by_dnn(Cuda& accelerator, Gpu& gpu, const View& y, const View& lse, const Attention& a) {
  if (!is_taken(gpu, a) || !is_aligned(lse.data)) return false;
  const AttentionCall call = call_of(a, y);
  const PlanUse plan(gpu, key_of(call, false), {}, [&] { return attention_graph(call); });
  if (!plan) return false;
  const auto in = [&](const View& x) { return operand(accelerator, gpu, x, DnnOperand::Use::read); };
  const DnnOperand q = in(a.q), k = in(a.k), v = in(a.v), out = operand(accelerator, gpu, y, DnnOperand::Use::write);
  void* const memory[] = {q.data(), k.data(), v.data(), out.data(), lse.data};
  plan.run(memory);
  out.store();
  return true;
}

bool attention_grad_by_dnn(Cuda& accelerator, Gpu& gpu, const View& dq, const View& dk, const View& dv, const View& dy,
                           const View& y, const View& lse, const Attention& a) {
  if (!is_taken(gpu, a) || !is_aligned(lse.data)) return false;
  AttentionCall call = call_of(a, y);
  call.dq = seen_strides(with_heads(dq));
  call.dk = seen_strides(with_heads(dk));
  call.dv = seen_strides(with_heads(dv));
  call.dy = seen_strides(with_heads(dy));
  call.any_order = allows_any_order();
  // The form whose bits are the same each time keeps gradients of all scores.
  const DnnRules rules{.any_order = call.any_order,
                       .most_workspace = static_cast<int64_t>(gpu.properties().totalGlobalMem / 8)};
  const PlanUse plan(gpu, key_of(call, true), rules, [&] { return attention_grad_graph(call); });
  if (!plan) return false;
  const auto in = [&](const View& x) { return operand(accelerator, gpu, x, DnnOperand::Use::read); };
  const auto out = [&](const View& x) { return operand(accelerator, gpu, x, DnnOperand::Use::write); };
  const DnnOperand q = in(a.q), k = in(a.k), v = in(a.v), result = in(y), gradient = in(dy);
  const DnnOperand q_out = out(dq), k_out = out(dk), v_out = out(dv);
  const Scratch along(gpu, static_cast<size_t>(lse.numel()) * sizeof(float));
  const Scratch sum(gpu, call.any_order ? static_cast<size_t>(dq.numel()) * sizeof(float) : 0);
  void* const memory[] = {q.data(),     k.data(),     v.data(),     result.data(),    lse.data,      gradient.data(),
                          q_out.data(), k_out.data(), v_out.data(), along.as<void>(), sum.as<void>()};
  plan.run(std::span(memory).first(call.any_order ? 11 : 10));
  for (const DnnOperand* x : {&q_out, &k_out, &v_out}) x->store();
  return true;
}

}  // namespace loom::cuda
