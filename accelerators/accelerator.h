// Everything that a device must be able to do: one virtual function per access pattern, ops passed as data.
//
// Conventions of all kernels:
// - Outputs come first. They are fully written (never read, unless the name or comment says "accumulates"), and must
// not
//   overlap inputs, except that an elementwise output may be exactly one of its inputs.
// - Views may have any strides, stride 0 included for inputs; kernels that need dense memory say so.
// - Shapes and dtypes have been checked by the caller (tensor/): a kernel checks nothing but the dtypes it lacks, for
//   which it throws "op: not implemented for dtype on cpu" (docs/op_dtype_table.md).
// - 16-bit floats are computed and accumulated in f32.
// - Results do not depend on timing: at equal num_threads() the same bits.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include <loom/accelerators/captured.h>
#include <loom/accelerators/device.h>
#include <loom/accelerators/device_properties.h>
#include <loom/accelerators/elementwise.h>
#include <loom/accelerators/memory.h>
#include <loom/accelerators/optimizer_step.h>
#include <loom/accelerators/philox.h>
#include <loom/accelerators/positions.h>
#include <loom/accelerators/stream.h>
#include <loom/accelerators/view.h>

namespace loom {

enum class Reduce : uint8_t { sum, mean, prod, max, min, all, any, sum_of_squares, logsumexp };
enum class ArgReduce : uint8_t { max, min };
enum class Cumulative : uint8_t { sum, product };
enum class Scatter : uint8_t { assign, add };
enum class Random : uint8_t { uniform, normal, bernoulli, integers };

// c = alpha * a @ b + beta * c + bias, over leading batch dimensions.
//   a [..., M, K], b [..., K, N], c [..., M, N]: equal rank >= 2, batch dims broadcast by stride 0 in a and b;
//   transposes are read off strides. bias: [N], null data or, with beta 0, of c's shape. beta 0 never reads c.
struct Gemm {
  View c, a, b, bias;
  double alpha = 1, beta = 0;
};

// Convolution geometry over two spatial dims (1-d uses a height of 1). Square brackets: {height, width}.
struct ConvGeometry {
  std::array<int64_t, 2> stride{1, 1}, padding{0, 0}, dilation{1, 1};
  int64_t groups = 1;
};

// Pooling geometry; `count_include_pad` is for averages (torch.nn.AvgPool2d).
struct PoolGeometry {
  std::array<int64_t, 2> kernel{1, 1}, stride{1, 1}, padding{0, 0}, dilation{1, 1};
  bool count_include_pad = true;
};

// Cross entropy per row of logits [N, C] against class indices [N] (torch.nn.functional.cross_entropy).
struct CrossEntropy {
  View weight;  // [C] of the logits' compute dtype, or null data
  int64_t ignore_index = -100;
  double label_smoothing = 0;
};

// softmax(scale * q k^T + mask) v. q [.., T, D], k [.., S, D], v [.., S, V]: equal rank >= 2 and equal leading dims,
// but that of the last of them (heads) k and v may have 1 / n of q's: head h of q attends to their head h / n.
struct Attention {
  View q, k, v;
  View mask;  // [.., T, S] boolean (true: attend), or of lse's dtype and added; or null data
  double scale;
  bool causal;  // position i attends to j <= i
};

// Recurrent layers: Elman's with tanh or relu, GRU (gates: reset, update, candidate), LSTM (in, forget, cell, out).
enum class RecurrentCell : uint8_t { tanh, relu, gru, lstm };
// One step on N rows; arrays dense, f32 or f64. from_input, from_state [N, G * H]: what input and state give to the
// gates, biases included, G = 1, 1, 3, 4; null: kept holds their sum (CPU's lstm). h_before, c_before (lstm) [N, H].
struct RecurrentStep {
  RecurrentCell cell;
  View from_input, from_state, h_before, c_before;
};
// What the gradient of a step reads: gradients of its results, what it kept, its results and the states before.
struct RecurrentGrad {
  RecurrentCell cell;
  View dh, dc, kept, h, c, h_before, c_before;
};

class DeviceClock;   // device_clock.h
class FusedKernels;  // fused.h

class Accelerator {
 public:
  virtual ~Accelerator() = default;
  // What the device does at once that takes others several calls; null: nothing.
  virtual FusedKernels* fused() { return nullptr; }
  virtual DeviceClock* clock() { return nullptr; }  // null: work is done when its call returns

  virtual DeviceProperties properties() const = 0;
  // Memory. Blocks are 64-byte aligned; release returns a block to the cache. bytes may be 0 (gives null).
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* block) noexcept = 0;
  virtual MemoryStats memory_stats() const = 0;
  virtual void reset_peak_memory_stats() = 0;
  virtual void empty_cache() = 0;
  // What stream.h says of streams and events, by their handles; null: the CPU's only one, whose work is done at once.
  virtual void* stream([[maybe_unused]] Lane lane) { return nullptr; }
  virtual void* current_stream() { return nullptr; }  // of this thread
  virtual void set_current_stream([[maybe_unused]] void* stream) {}
  virtual std::shared_ptr<void> record([[maybe_unused]] void* stream) { return nullptr; }
  virtual void order([[maybe_unused]] void* stream, [[maybe_unused]] void* event) {}
  virtual bool is_done([[maybe_unused]] void* event) { return true; }
  virtual void wait([[maybe_unused]] void* event) {}
  virtual void synchronize() {}  // the host waits until all work is done; throws what a kernel has found wrong
  // `stream`, not the one that a block was allocated in, uses it: it is not handed out again before that is over.
  virtual void use_by([[maybe_unused]] void* block, [[maybe_unused]] void* stream) {}
  // Pinned memory: the host's, which the device reads and writes by itself. Of a block that was released, what streams
  // had been told to do is done before it is handed out again. The CPU needs none: any memory of its own.
  virtual void* allocate_pinned(size_t bytes) { return allocate(bytes); }
  virtual void release_pinned(void* block) noexcept { release(block); }
  virtual bool is_pinned([[maybe_unused]] const void* address) const { return false; }  // inside a block in use
  virtual MemoryStats pinned_memory_stats() const { return {}; }

  // Waits for the device, then records what this thread puts into its stream, and into those that wait for that one's
  // events, until end(). Null: the device has no streams, and does everything at once.
  virtual std::unique_ptr<Captured> capture() { return nullptr; }
  virtual bool is_capturing() { return false; }  // this thread's stream
  // Written in the order of this thread's stream; `words` may change after the call.
  virtual void write_words([[maybe_unused]] uint64_t* to, [[maybe_unused]] std::span<const uint64_t> words) {}
  // Adds `by` to numbers in the device's memory, unless *skip, if given, is not 0.
  virtual void advance([[maybe_unused]] std::span<int64_t* const> numbers, [[maybe_unused]] int64_t by,
                       [[maybe_unused]] const float* skip) {}

  // y = x, converting dtypes; any strides; equal shapes. float to integer truncates, anything to boolean tests != 0.
  // Between devices: dense, of one dtype. x may be written again when the call returns, and y on the host be read; the
  // host waits for the device only where y is its own.
  virtual void copy(const View& y, const View& x) = 0;
  // Between devices as copy, but a view of pinned memory is left to the stream: what is written to x, or read of y,
  // before the stream has come so far is anybody's guess. Other memory of the host is treated as copy does.
  virtual void copy_in_stream(const View& y, const View& x) { copy(y, x); }
  virtual void fill(const View& y, double value) = 0;
  virtual void fill(const View& y, int64_t value) = 0;
  // y[i] = start + i * step, y of rank 1.
  virtual void arange(const View& y, double start, double step) = 0;

  // Elementwise; all views have y's shape (broadcast by stride 0). x (a, b) share one dtype; y has it too, or boolean
  // where the op is a predicate.
  virtual void unary(Unary op, const View& y, const View& x, double p, double q) = 0;
  virtual void binary(Binary op, const View& y, const View& a, const View& b) = 0;
  virtual void where(const View& y, const View& condition, const View& a, const View& b) = 0;  // condition: boolean

  // y has x's rank with extent 1 in the reduced dims. all/any: boolean y. sum and prod of integral x: i64 y; mean and
  // logsumexp: floating only. Empty reductions give the neutral element (max/min: the caller has refused them).
  // NaN propagates through max and min. Floating sums are pairwise or blocked, not one running sum.
  virtual void reduce(Reduce op, const View& y, const View& x) = 0;
  // values (x's dtype) and index (i64) have x's shape with extent 1 at dim; ties give the first; NaN wins.
  virtual void arg_reduce(ArgReduce op, const View& values, const View& index, const View& x, int dim) = 0;
  virtual void cumulative(Cumulative op, const View& y, const View& x, int dim) = 0;
  // The first k of x sorted along dim (stable; NaN counts as largest); values and index have extent k at dim.
  virtual void sort(const View& values, const View& index, const View& x, int dim, bool descending) = 0;

  // Floating dtypes, all equal; or a and b of f16 or bf16, c and bias of f32.
  virtual void gemm(const Gemm& args) = 0;

  // x [N, C, H, W], w [O, C / groups, KH, KW], y [N, O, OH, OW], bias [O] or null data. Floating dtypes, all equal.
  virtual void conv2d(const View& y, const View& x, const View& w, const View& bias, const ConvGeometry& g) = 0;
  virtual void conv2d_grad_input(const View& dx, const View& dy, const View& w, const ConvGeometry& g) = 0;
  virtual void conv2d_grad_weight(const View& dw, const View& dy, const View& x, const ConvGeometry& g) = 0;

  // index [N, C, OH, OW] i64: position h * W + w of the maximum in x's plane. Padding never wins; NaN wins.
  virtual void max_pool2d(const View& y, const View& index, const View& x, const PoolGeometry& g) = 0;
  // dx [N, C, H, W]: 0 but at the positions in index, where dy is added; g as max_pool2d had it.
  virtual void max_pool2d_grad(const View& dx, const View& dy, const View& index, const PoolGeometry& g) = 0;
  virtual void avg_pool2d(const View& y, const View& x, const PoolGeometry& g) = 0;
  virtual void avg_pool2d_grad(const View& dx, const View& dy, const PoolGeometry& g) = 0;

  // y = softmax(x) along dim, or its logarithm.
  virtual void softmax(const View& y, const View& x, int dim, bool log) = 0;
  // dx = y * (dy - sum(y * dy)), or for log_softmax dy - exp(y) * sum(dy).
  virtual void softmax_grad(const View& dx, const View& dy, const View& y, int dim, bool log) = 0;

  // loss [N] and lse [N] (logsumexp of each row; f32 for 16-bit logits) of logits [N, C], target i64 [N]; rows with
  // target == ignore_index give 0. Any other target outside [0, C) throws "cross_entropy: target 12 at row 3 ...".
  virtual void cross_entropy(const View& loss, const View& lse, const View& logits, const View& target,
                             const CrossEntropy& options) = 0;
  // dlogits = g[n] * d loss[n] / d logits.
  virtual void cross_entropy_grad(const View& dlogits, const View& g, const View& lse, const View& logits,
                                  const View& target, const CrossEntropy& options) = 0;

  // Normalises each row of x [R, C] (dense): y = (x - mean) * rstd * w + b, rstd = 1 / sqrt(var + eps), biased
  // variance. w, b [P] or null data: element e of x takes weight e / spread % P, where P = C and spread = 1 but for
  // group norm, whose rows are groups of channels. mean, rstd [R] in f32 (f64 for f64). rms: no mean (mean null), var =
  // mean of squares.
  virtual void layer_norm(const View& y, const View& mean, const View& rstd, const View& x, const View& w,
                          const View& b, double eps, bool rms, int64_t spread = 1) = 0;
  // dw, db may have null data; dx too.
  virtual void layer_norm_grad(const View& dx, const View& dw, const View& db, const View& dy, const View& x,
                               const View& w, const View& mean, const View& rstd, bool rms, int64_t spread = 1) = 0;

  // x [N, C, L] (L = product of the spatial dims), statistics [C] in f32 (f64 for f64). Writes mean and the biased var.
  virtual void batch_statistics(const View& mean, const View& var, const View& x) = 0;
  // y = (x - mean) * rsqrt(var + eps) * w + b; w, b [C] or null data.
  virtual void batch_norm(const View& y, const View& x, const View& mean, const View& var, const View& w, const View& b,
                          double eps) = 0;
  // Gradients of batch_norm; training: through the batch's own statistics. dx, dw, db may have null data.
  virtual void batch_norm_grad(const View& dx, const View& dw, const View& db, const View& dy, const View& x,
                               const View& mean, const View& var, const View& w, double eps, bool training) = 0;
  // y = max(batch_norm + added, 0); added of x's shape and dtype, or null data.
  virtual void batch_norm_relu(const View& y, const View& x, const View& added, const View& mean, const View& var,
                               const View& w, const View& b, double eps) = 0;
  // dy counts where y > 0: that is d_added (or null data); else as batch_norm_grad.
  virtual void batch_norm_relu_grad(const View& dx, const View& d_added, const View& dw, const View& db, const View& dy,
                                    const View& y, const View& x, const View& mean, const View& var, const View& w,
                                    double eps, bool training) = 0;

  // Indices are i64 views. An index outside the extent throws "op: index 7 is out of range for dimension 0 of size 5".
  // y = x with dim replaced by index's only dim: y[.., i, ..] = x[.., index[i], ..].
  virtual void index_select(const View& y, const View& x, const View& index, int dim) = 0;
  // y[.., index[i], ..] += x[.., i, ..] (accumulates into y; deterministic order).
  virtual void index_add(const View& y, const View& x, const View& index, int dim) = 0;
  // torch.gather: y[i][j] = x[index[i][j]][j] for dim 0, and so on; index has y's shape.
  virtual void gather(const View& y, const View& x, const View& index, int dim) = 0;
  // torch.scatter: y[index[i][j]][j] = (or +=) x[i][j]; accumulates into y; deterministic order.
  virtual void scatter(Scatter mode, const View& y, const View& x, const View& index, int dim) = 0;

  // uniform: [a, b); normal: mean a, deviation b; bernoulli: 1 with probability a; integers: [a, b).
  // Element i (row-major) takes word i % 4 of block i / 4 (f64: words of block i / 2; integers: i64 from two words of
  // block i / 2; normal: Box-Muller on word pairs). Defined once in philox.h's terms, the same on every device.
  virtual void random(Random kind, const View& y, double a, double b, const Philox& state) = 0;
  // Element i is kept where half i of the draw's words, 16 bits of block i / 8 (random.h), is below `kept`, at most
  // 2^16: mask (boolean) is that, y = x * scale there and x * 0 elsewhere. y and mask dense, of x's shape.
  virtual void dropout(const View& y, const View& mask, const View& x, uint32_t kept, double scale,
                       const Philox& state) = 0;
  // dx = g * scale where the dense mask is true, g * 0 elsewhere.
  virtual void dropout_grad(const View& dx, const View& g, const View& mask, double scale) = 0;

  // lse [.., T] (dense; f32, f64 for f64 operands): logsumexp of each row of scores, +infinity where nothing may be
  // attended to, for which y [.., T, V] is 0. No array of T x S elements is kept.
  virtual void attention(const View& y, const View& lse, const Attention& a) = 0;
  // Gradients of q, k and v, in the shapes that the operands have.
  virtual void attention_grad(const View& dq, const View& dk, const View& dv, const View& dy, const View& y,
                              const View& lse, const Attention& a) = 0;

  // h, c (lstm) [N, H]; kept [N, 4 * H] (gru, lstm) for the gradient; its rows and d_input's may lie apart (CPU).
  virtual void recurrent_cell(const View& h, const View& c, const View& kept, const RecurrentStep& s) = 0;
  // Gradients of from_input and (gru; of the others they are the same) from_state, of c_before (lstm), and of h_before
  // beside the gates (gru). d_input may be what was kept itself (CPU's lstm).
  virtual void recurrent_cell_grad(const View& d_input, const View& d_state, const View& dh_before,
                                   const View& dc_before, const RecurrentGrad& s) = 0;

  // One optimizer step over many pieces. An element's result does not depend on what lies beside it. States:
  // sgd {momentum}, which the first step initialises with the gradient; adam {mean, square, largest square (amsgrad)};
  // adagrad {sum of squares}; rmsprop {square, mean (centered), momentum}.
  virtual void sgd(std::span<const UpdatePiece> pieces, const SgdStep& s) = 0;
  virtual void adam(std::span<const UpdatePiece> pieces, const AdamStep& s) = 0;
  virtual void adagrad(std::span<const UpdatePiece> pieces, const AdagradStep& s) = 0;
  virtual void rmsprop(std::span<const UpdatePiece> pieces, const RmspropStep& s) = 0;
  // Gradients that carry a loss scale: those of f32 and f64 are multiplied with `factor`, and `found` becomes 1 where
  // one of any dtype is not finite (it is left as it is otherwise). factor, found: one f32 each.
  virtual void unscale(std::span<const UpdatePiece> pieces, const View& factor, const View& found) = 0;

  // Where x (boolean, dense) is true. The CPU's alone, as the host wants to know how many there are; others have null.
  virtual std::unique_ptr<Positions> positions([[maybe_unused]] const View& x) { return nullptr; }
};

// The accelerator of a device; throws "… is on cuda:0, but …" where the build or the machine lacks it.
Accelerator& accelerator(Device device);
// Number of devices of a kind that can be used: 1 for cpu, 0 or more for cuda.
int device_count(Device::Kind kind);

}  // namespace loom
