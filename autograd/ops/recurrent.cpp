// Recurrent layers' steps as one op: a product and one pass over the gates each, and in backward one product for the
// gradient of the weights of all steps. A backward that is itself recorded is composed of other ops. Operands of 16
// bits are stepped through in f32, as what is rounded at each step adds up over the sequence; results are rounded once.
#include <loom/autograd/ops/recurrent.h>

#include <loom/autograd/compose.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/graph.h>
#include <loom/autograd/linear_gradients.h>
#include <loom/autograd/ops.h>
#include <loom/autograd/step_products.h>
#include <loom/tensor/create.h>
#include <loom/tensor/raw.h>

namespace loom {

using namespace autograd;

namespace {

// What the kernel keeps of each step for its gradient, in units of H.
int64_t kept_parts(RecurrentCell cell) { return cell == RecurrentCell::lstm || cell == RecurrentCell::gru ? 4 : 0; }

// wide() without a graph.
Tensor widened(const Tensor& x) { return x.defined() && is_half(x.dtype()) ? raw::cast(x, DType::f32) : x; }

// x itself where it has the dtype already, as a handle of its own: the graph holds x, so x must not hold its node.
Tensor rounded(const Tensor& x, DType dtype) { return x.dtype() == dtype ? raw::alias(x) : raw::cast(x, dtype); }

View view_or_null(const Tensor& x) { return x.defined() ? View(x) : View(); }

// Position t of an array [T, ..], or no view of no array.
View at(const Tensor& x, int64_t t) {
  if (!x.defined()) return {};
  View v = raw::select(x, 0, t);
  return v;
}

struct Steps {
  RecurrentCell cell;
  bool reverse;
  int64_t steps, rows, hidden, gates;  // T, N, H, G * H

  int64_t position(int64_t step) const { return reverse ? steps - 1 - step : step; }

  // [T + 1, N, H]: the initial state, then those after each step, in the order of steps.
  Tensor states(const Tensor& initial, DType dtype) const {
    Tensor all = empty({steps + 1, rows, hidden}, {dtype, initial.device()});
    raw::copy_into(raw::select(all, 0, reverse ? steps : 0), initial);
    return all;
  }
  // The state after the step at each position, and that before it.
  Tensor after(const Tensor& states) const { return positions(states, reverse ? 0 : 1); }
  Tensor before(const Tensor& states) const { return positions(states, reverse ? 1 : 0); }

 private:
  Tensor positions(const Tensor& states, int64_t from) const { return raw::slice(states, 0, from, from + steps, 1); }
};

void check_operands(const Steps& s, const Tensor& gates, const Tensor& w_hh, const Tensor& b_hh, const Tensor& h_0,
                    const Tensor& c_0) {
  const char* const op = "recurrent_steps";
  const bool lstm = s.cell == RecurrentCell::lstm;
  const Dims state{s.rows, s.hidden};
  check(s.steps > 0 && w_hh.shape() == Dims{s.gates, s.hidden} && h_0.shape() == state &&
            s.gates == s.hidden * (lstm                           ? 4
                                   : s.cell == RecurrentCell::gru ? 3
                                                                  : 1) &&
            (!b_hh.defined() || b_hh.shape() == Dims{s.gates}) && c_0.defined() == lstm &&
            (!lstm || c_0.shape() == state),
        op, ": given gates ", gates.shape(), ", w_hh ", w_hh.shape(), " and a state ", h_0.shape(),
        ", expected [T, N, G * H], [G * H, H] and [N, H]");
  check(is_floating(gates.dtype()), op, ": given gates of ", gates.dtype(), ", expected a floating dtype");
  for (const Tensor* x : {&w_hh, &b_hh, &h_0, &c_0}) {
    if (!x->defined()) continue;
    raw::check_same_device(op, gates, *x);
    check(x->dtype() == gates.dtype(), op, ": dtypes ", gates.dtype(), " and ", x->dtype(),
          " differ; convert one with .to(dtype)");
  }
}

// Everything of a forward pass that its backward reads, in f32 or f64.
struct Pass {
  Tensor w_hh;
  Tensor y, h_before, c, c_before;  // [T, N, H]; c: lstm
  Tensor kept;                      // [T, N, parts * H]
};

void forward(const Steps& s, const Tensor& gates, const Tensor& b_hh, const Pass& p) {
  Accelerator& on = accelerator(gates.device());
  // What input and state give is summed where the gates are kept.
  const bool joined = s.cell == RecurrentCell::lstm && gates.device().kind == Device::cpu && !b_hh.defined();
  const Tensor from_state = joined ? Tensor() : empty({s.rows, s.gates}, {p.w_hh.dtype(), p.w_hh.device()});
  const Tensor bias = b_hh.defined() ? raw::expand(b_hh, {s.rows, s.gates}) : b_hh;
  const StepProducts product(raw::transpose(p.w_hh, 0, 1), s.steps, s.rows);
  for (int64_t step = 0; step < s.steps; ++step) {
    const int64_t t = s.position(step);
    const View before = at(p.h_before, t);
    if (joined)
      product(at(p.kept, t), before, at(gates, t));
    else
      product(from_state, before, view_or_null(bias));
    on.recurrent_cell(at(p.y, t), at(p.c, t), at(p.kept, t),
                      {s.cell, joined ? View() : at(gates, t), view_or_null(from_state), before, at(p.c_before, t)});
  }
}

// Sum over all steps of d_state^T @ the state before.
Tensor gradient_of_w_hh(const Steps& s, const Tensor& d_state, const Pass& p) {
  const auto rows = [&](const Tensor& x) { return raw::reshape(x, {s.steps * s.rows, x.shape().back()}); };
  return weight_gradient(1, rows(d_state), rows(p.h_before));
}

// dy [T, N, H] and dc_n [N, H] may be undefined. Gradients of gates, w_hh, b_hh, h_0, c_0; those of w_hh and h_0, which
// take products, where they are needed.
Grads backward(const Steps& s, const Tensor& dy, const Tensor& dc_n, const Pass& p, bool bias, const Needs& needs) {
  const TensorOptions like(p.y.dtype(), p.y.device());
  Accelerator& on = accelerator(p.y.device());
  const bool lstm = s.cell == RecurrentCell::lstm, gru = s.cell == RecurrentCell::gru;
  // Where nobody reads what was kept again, its memory, which is near, takes the gradient.
  const bool in_place = lstm && p.y.device().kind == Device::cpu && !keeps_graph();
  const Tensor d_input = in_place ? p.kept : rows_apart({s.steps, s.rows, s.gates}, p.y),
               d_state = gru ? rows_apart(d_input.shape(), p.y) : d_input;
  const Tensor dh = zeros({s.rows, s.hidden}, like), total = empty(dh.shape(), like);
  Tensor dc = !lstm ? Tensor() : dc_n.defined() ? raw::clone(dc_n) : zeros(dh.shape(), like);
  const StepProducts product(p.w_hh, s.steps, s.rows);
  const bool joins = p.y.device().kind == Device::cpu && dy.defined() && !gru;  // dy, in the product
  for (int64_t step = s.steps - 1; step >= 0; --step) {
    const int64_t t = s.position(step);
    if (dy.defined() && (!joins || step == s.steps - 1))
      on.binary(Binary::add, total, dh, at(dy, t));
    else if (!joins)
      on.copy(total, dh);
    const Tensor dc_before = lstm ? empty(dh.shape(), like) : Tensor();
    on.recurrent_cell_grad(
        at(d_input, t), gru ? at(d_state, t) : View(), dh, view_or_null(dc_before),
        {s.cell, total, view_or_null(dc), at(p.kept, t), at(p.y, t), at(p.c, t), at(p.h_before, t), at(p.c_before, t)});
    if (joins && step > 0)
      product(total, at(d_state, t), at(dy, s.position(step - 1)));
    else if (step > 0 || needs[3])
      product(dh, at(d_state, t), View(), gru);
    dc = dc_before;
  }
  Grads grads(5);
  grads[0] = d_input;
  if (needs[1]) grads[1] = gradient_of_w_hh(s, d_state, p);
  if (bias) grads[2] = raw::reduce(Reduce::sum, d_state, {0, 1}, false);
  if (needs[3]) grads[3] = dh;
  grads[4] = dc;
  return grads;
}

// A step in ordinary ops, and its gradient: what a recorded backward is made of.
struct ComposedStep {
  Tensor h, c, h_before, c_before;
  std::vector<Tensor> parts;  // the gates after their functions; of a GRU also the state's part of the candidate

  ComposedStep(RecurrentCell cell, const Tensor& gates, const Tensor& from_state, const Tensor& h0, const Tensor& c0)
      : h_before(h0), c_before(c0) {
    if (cell == RecurrentCell::lstm) {
      const std::vector<Tensor> a = chunk(gates + from_state, 4, -1);
      parts = {sigmoid(a[0]), sigmoid(a[1]), tanh(a[2]), sigmoid(a[3])};
      c = parts[1] * c_before + parts[0] * parts[2];
      h = parts[3] * tanh(c);
    } else if (cell == RecurrentCell::gru) {
      const std::vector<Tensor> a = chunk(gates, 3, -1), b = chunk(from_state, 3, -1);
      const Tensor reset = sigmoid(a[0] + b[0]);
      parts = {reset, sigmoid(a[1] + b[1]), tanh(a[2] + reset * b[2]), b[2]};
      h = parts[2] + parts[1] * (h_before - parts[2]);
    } else {
      h = cell == RecurrentCell::relu ? relu(gates + from_state) : tanh(gates + from_state);
    }
  }

  struct Gradient {
    Tensor input, state, h_before, c_before;  // h_before: beside what goes through the gates; may be undefined
  };
  Gradient gradient(RecurrentCell cell, const Tensor& dh, const Tensor& dc_after) const {
    if (cell == RecurrentCell::lstm) {
      const Tensor squashed = tanh(c), d = dc_after + dh * parts[3] * (1.0 - square(squashed));
      const Tensor da = cat({d * parts[2] * parts[0] * (1.0 - parts[0]), d * c_before * parts[1] * (1.0 - parts[1]),
                             d * parts[0] * (1.0 - square(parts[2])), dh * squashed * parts[3] * (1.0 - parts[3])},
                            -1);
      return {da, da, {}, d * parts[1]};
    }
    if (cell == RecurrentCell::gru) {
      const Tensor dn = dh * (1.0 - parts[1]) * (1.0 - square(parts[2]));
      const Tensor dr = dn * parts[3] * parts[0] * (1.0 - parts[0]);
      const Tensor dz = dh * (h_before - parts[2]) * parts[1] * (1.0 - parts[1]);
      return {cat({dr, dz, dn}, -1), cat({dr, dz, dn * parts[0]}, -1), dh * parts[1], {}};
    }
    const Tensor da = cell == RecurrentCell::relu ? relu_backward(dh, h) : dh * (1.0 - square(h));
    return {da, da, {}, {}};
  }
};

struct Operands {
  Tensor gates, w_hh, b_hh, h_0, c_0;
};

Grads composed(const Steps& s, const Tensor& dy, const Tensor& dc_n, const Operands& x) {
  std::vector<ComposedStep> done;
  Tensor h = x.h_0, c = x.c_0;
  for (int64_t step = 0; step < s.steps; ++step) {
    done.emplace_back(s.cell, select(x.gates, 0, s.position(step)), linear(h, x.w_hh, x.b_hh), h, c);
    h = done.back().h;
    c = done.back().c;
  }
  Tensor dh = zeros_like(x.h_0), dc = dc_n, dw, db;
  if (s.cell == RecurrentCell::lstm && !dc.defined()) dc = zeros_like(x.c_0);
  std::vector<Tensor> d_gates(static_cast<size_t>(s.steps));
  for (int64_t step = s.steps - 1; step >= 0; --step) {
    const int64_t t = s.position(step);
    const Tensor total = dy.defined() ? dh + select(dy, 0, t) : dh;
    const auto d = done[static_cast<size_t>(step)].gradient(s.cell, total, dc);
    d_gates[static_cast<size_t>(t)] = d.input;
    dh = matmul(d.state, x.w_hh);
    if (d.h_before.defined()) dh = dh + d.h_before;
    dc = d.c_before;
    const Tensor w = matmul(d.state.t(), done[static_cast<size_t>(step)].h_before), b = sum(d.state, {0});
    dw = dw.defined() ? dw + w : w;
    db = db.defined() ? db + b : b;
  }
  Grads grads(5);
  grads[0] = stack(d_gates, 0);
  grads[1] = dw;
  if (x.b_hh.defined()) grads[2] = db;
  grads[3] = dh;
  grads[4] = dc;
  return grads;
}

}  // namespace

std::pair<Tensor, Tensor> recurrent_steps(RecurrentCell cell, const Tensor& gates_, const Tensor& w_hh_,
                                          const Tensor& b_hh_, const Tensor& h_0_, const Tensor& c_0_, bool reverse) {
  const auto [gates, w_hh, b_hh, h_0, c_0] = enter(ops::recurrent_steps, gates_, w_hh_, b_hh_, h_0_, c_0_);
  check(gates.dim() == 3 && w_hh.dim() == 2 && h_0.dim() == 2, "recurrent_steps: given gates ", gates.shape(),
        ", w_hh ", w_hh.shape(), " and a state ", h_0.shape(), ", expected [T, N, G * H], [G * H, H] and [N, H]");
  const Steps s{cell, reverse, gates.size(0), gates.size(1), h_0.size(1), gates.size(2)};
  check_operands(s, gates, w_hh, b_hh, h_0, c_0);
  const bool lstm = cell == RecurrentCell::lstm;
  const DType dtype = gates.dtype();
  Pass pass{.w_hh = widened(w_hh)};
  const Tensor h = s.states(h_0, pass.w_hh.dtype());
  pass.y = s.after(h);
  pass.h_before = s.before(h);
  if (lstm) {
    const Tensor c = s.states(c_0, pass.w_hh.dtype());
    pass.c = s.after(c);
    pass.c_before = s.before(c);
  }
  if (kept_parts(cell) > 0) pass.kept = rows_apart({s.steps, s.rows, kept_parts(cell) * s.hidden}, pass.w_hh);
  if (s.rows > 0) forward(s, raw::contiguous(widened(gates)), widened(b_hh), pass);
  const Tensor y = rounded(pass.y, dtype);
  const Tensor c_n = lstm ? rounded(raw::select(pass.c, 0, s.position(s.steps - 1)), dtype) : Tensor();
  const Tensor outputs[] = {y, c_n};
  record_outputs(
      ops::recurrent_steps, std::span(outputs, lstm ? 2 : 1), Inputs{gates, w_hh, b_hh, h_0, c_0},
      [s, pass, y_kept = save(pass.y), c_kept = save(pass.c), gates = save(gates), w_hh = save(w_hh), b_hh = save(b_hh),
       h_0 = save(h_0), c_0 = save(c_0)](std::span<const Tensor> g, const Needs& needs) {
        y_kept();  // nor the results written to meanwhile
        c_kept();
        const Tensor dc_n = g.size() > 1 ? wide(g[1]) : Tensor();
        if (context().grad_mode || s.rows == 0)
          return composed(s, wide(g[0]), dc_n, {wide(gates()), wide(w_hh()), wide(b_hh()), wide(h_0()), wide(c_0())});
        w_hh();  // not written to meanwhile
        const Tensor dy = widened(g[0]);
        return backward(s, dy.defined() ? raw::contiguous(dy) : dy, dc_n, pass, b_hh().defined(), needs);
      });
  return {y, c_n};
}

}  // namespace loom
