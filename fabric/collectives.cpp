// Fabric's collectives over all ranks.
#include <loom/autograd/ops.h>
#include <loom/fabric/agreement.h>
#include <loom/fabric/fabric.h>
#include <loom/tensor/create.h>

namespace loom {

namespace {

ReduceOp reduce_op_from(std::string_view name) {
  if (name == "mean" || name == "avg") return ReduceOp::mean;
  if (name == "sum") return ReduceOp::sum;
  if (name == "min") return ReduceOp::min;
  if (name == "max") return ReduceOp::max;
  if (name == "product") return ReduceOp::product;
  fail("all_reduce: unknown reduce_op '", name, "'; available: mean, sum, min, max, product");
}

// How many rows each rank has.
std::vector<int64_t> heights_of(Communicator& ranks, int64_t rows) {
  std::vector<int64_t> heights(static_cast<size_t>(ranks.size()));
  ranks.all_gather(view_over(heights.data(), DType::i64, {ranks.size()}), view_over(&rows, DType::i64, {1})).wait();
  return heights;
}

}  // namespace

Tensor Fabric::all_reduce(const Tensor& x, std::string_view reduce_op) {
  Communicator& all = ranks("all_reduce");
  Tensor out = x.detach().contiguous().clone();
  all.all_reduce(out, reduce_op_from(reduce_op)).wait();
  return out;
}

double Fabric::all_reduce(double x, std::string_view reduce_op) {
  ranks("all_reduce").all_reduce(view_over(&x, DType::f64, {1}), reduce_op_from(reduce_op)).wait();
  return x;
}

Tensor Fabric::all_gather(const Tensor& x) {
  Communicator& all = ranks("all_gather");
  Dims shape = x.shape();
  shape.insert(0, all.size());
  const Tensor in = x.detach().contiguous();
  Tensor out = empty(shape, {x.dtype(), x.device()});
  all.all_gather(out, in).wait();
  return out;
}

std::vector<Tensor> Fabric::all_gather_ragged(const Tensor& x) {
  Communicator& all = ranks("all_gather_ragged");
  check(x.dim() >= 1, "all_gather_ragged: expects at least 1 dimension, got a number");
  const Tensor in = x.detach().contiguous();
  const std::vector<int64_t> heights = heights_of(all, x.size(0));
  Dims shape = x.shape();
  shape[0] = 1;
  const int64_t row = shape.numel();
  shape[0] = 0;
  std::vector<int64_t> counts;
  for (const int64_t h : heights) {
    counts.push_back(h * row);
    shape[0] += h;
  }
  const Tensor out = empty(shape, {x.dtype(), x.device()});
  all.all_gather(out, in, counts).wait();
  return split(out, heights, 0);
}

Tensor Fabric::broadcast(const Tensor& x, int src) {
  Communicator& all = ranks("broadcast");
  const bool sender = all.rank() == src;
  std::string header;
  if (sender && x.defined()) {
    header = x.device().kind == Device::cpu ? "cpu " : "own ";  // as all ranks have to issue the same collective
    header += to_string(x.dtype());
    for (const int64_t n : x.shape()) header += " " + std::to_string(n);
  }
  header = all.broadcast_bytes(header, src);
  if (header.empty()) throw AgreedError(str("broadcast: rank ", src, " gave an undefined tensor to send"));
  const Device device = header.starts_with("cpu") ? Device() : device_;
  header.erase(0, 4);
  Dims shape;
  for (size_t at = header.find(' '); at != std::string::npos; at = header.find(' ', at + 1))
    shape.push_back(std::stoll(header.substr(at + 1)));
  const DType dtype = dtype_from_string(header.substr(0, header.find(' ')));
  Tensor out = sender ? x.detach().contiguous().clone() : empty(shape, {dtype, device});
  all.broadcast(out, src).wait();
  return out;
}

std::string Fabric::broadcast(const std::string& text, int src) {
  return ranks("broadcast").broadcast_bytes(text, src);
}

void Fabric::barrier() { ranks("barrier").barrier().wait(); }

void Fabric::rank_zero_first(const std::function<void()>& f, bool local) {
  Communicator& all = ranks("rank_zero_first");
  const bool first = (local ? local_rank() : global_rank()) == 0;
  for (const bool turn : {true, false}) all.agree(turn == first ? error_of(f) : "");
}

}  // namespace loom
