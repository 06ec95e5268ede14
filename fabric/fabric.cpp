#include <loom/fabric/fabric.h>

#include <cmath>
#include <cstdio>
#include <exception>
#include <iostream>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/threads.h>
#include <loom/autograd/ops.h>
#include <loom/distributed/mpi.h>
#include <loom/fabric/directory_lock.h>
#include <loom/fabric/placement.h>
#include <loom/tensor/context.h>

namespace loom {

namespace {

Device resolve_accelerator(const std::string& name, int local_rank) {
  check(name == "auto" || name == "cpu" || name == "cuda" || name == "gpu", "unknown accelerator '", name,
        "'; available: auto, cpu, cuda");
  const int gpus = name == "cpu" ? 0 : device_count(Device::cuda);
  if (name == "cpu" || (name == "auto" && gpus == 0)) return Device::cpu;
  check(gpus > 0, "accelerator '", name, "': this build or this machine has no CUDA device; use 'cpu' or 'auto'");
  check(local_rank < gpus, "accelerator '", name, "': local rank ", local_rank, " has no device, this machine has ",
        gpus);
  return {Device::cuda, local_rank};
}

// mpirun binds a rank to one core by default where there are two ranks; its other threads would share that core.
void warn_about_binding(int local_size) {
  const int cores = available_cores();
  if (num_threads() > cores)
    std::cerr << str("loom: this rank may run on ", cores, " of the machine's cores but uses ", num_threads(),
                     " threads; start mpirun with --bind-to none, or set LOOM_NUM_THREADS=", cores, " (", local_size,
                     " ranks on this node)\n");
}

ReduceOp reduce_op_from(std::string_view name) {
  if (name == "mean" || name == "avg") return ReduceOp::mean;
  if (name == "sum") return ReduceOp::sum;
  if (name == "min") return ReduceOp::min;
  if (name == "max") return ReduceOp::max;
  if (name == "product") return ReduceOp::product;
  fail("all_reduce: unknown reduce_op '", name, "'; available: mean, sum, min, max, product");
}

}  // namespace

Fabric::Fabric(FabricOptions options) : options_(std::move(options)) {}

Fabric::~Fabric() = default;

void Fabric::join_ranks() {
  if (communicator_) return;
  if (options_.plugins.communicator)
    communicator_ = options_.plugins.communicator;
  else if (started_by_mpi())
    communicator_ = mpi_communicator();
  else
    communicator_ = self_communicator();
  const NodePlacement place = node_placement(*communicator_);
  local_rank_ = place.local_rank;
  node_rank_ = place.node_rank;
  check_launched_ranks(options_.devices, options_.num_nodes, place.local_size, place.nodes);
  precision_ = make_precision(options_.precision);
  device_ = resolve_accelerator(options_.accelerator, local_rank_);
  strategy_ = options_.plugins.strategy ? options_.plugins.strategy : make_strategy(options_.strategy, world_size());
  context().data_rank = global_rank();
  if (local_rank_ == 0) warn_about_binding(place.local_size);
}

namespace {

// Alone and more ranks wanted: what can be wrong with the options is said here, once, rather than by every rank.
void start_ranks_if_alone(const FabricOptions& options) {
  if (options.plugins.communicator || started_by_mpi()) return;
  const int ranks = requested_ranks(options.devices);
  check(options.num_nodes == 1, "num_nodes=", options.num_nodes,
        ": start the program on every node with mpirun or srun");
  if (ranks == 1) return;
  make_precision(options.precision);
  if (!options.plugins.strategy) make_strategy(options.strategy, ranks);
  restart_under_mpirun(ranks);
}

}  // namespace

void Fabric::launch(const std::function<void()>& f) {
  start_ranks_if_alone(options_);
  join_ranks();
  f();
  if (is_global_zero())
    for (const auto& logger : options_.loggers) logger->finalize();
}

int Fabric::launch(int, char**, const std::function<void()>& f) {
  try {
    launch(f);
    return 0;
  } catch (const AgreedError& error) {  // every rank is here, with the same text
    if (is_global_zero()) std::cerr << "error: " << error.what() << std::endl;
    communicator_->barrier().wait();
    return 1;
  } catch (const std::exception& error) {
    if (world_size() == 1) {
      std::cerr << "error: " << error.what() << std::endl;
      return 1;
    }
    communicator_->abort(error.what());
    return 1;
  }
}

void Fabric::require_launched(const char* what) const {
  check(communicator_ != nullptr, what, ": call fabric.launch(...) first; what uses ranks or devices goes inside");
}

Strategy& Fabric::strategy() {
  require_launched("strategy");
  return *strategy_;
}

Communicator& Fabric::communicator() {
  require_launched("communicator");
  return *communicator_;
}

std::shared_ptr<ModuleSync> Fabric::place(std::vector<NamedTensor> parameters, std::vector<NamedTensor> buffers,
                                          bool move) {
  require_launched("setup");
  TensorOptions target(precision_.dtype);
  if (move) target.device = device_;
  nn::convert_state(parameters, target);
  nn::convert_state(buffers, target);
  return strategy_->setup_module(*communicator_, std::move(parameters), std::move(buffers));
}

void Fabric::after_setup() {
  for (const auto& callback : options_.callbacks) callback->on_after_setup(*this);
}

void Fabric::after_optimizer_step() {
  ++global_step_;
  for (const auto& callback : options_.callbacks) callback->on_after_optimizer_step(*this);
}

void Fabric::backward(const Tensor& loss, const Tensor& gradient, bool retain_graph, bool create_graph) {
  loss.backward(gradient, retain_graph, create_graph);
}

double Fabric::clip(ModuleSync& sync, const std::vector<Tensor>& gradients, const ClipOptions& options) {
  check(!(options.clip_val && options.max_norm),
        "clip_gradients: only one of clip_val and max_norm can be set; each is an algorithm of its own");
  check(options.clip_val || options.max_norm, "clip_gradients: set clip_val or max_norm");
  const NoGrad off;
  if (options.clip_val) {
    for (const Tensor& g : gradients) g.clamp_(-*options.clip_val, *options.clip_val);
    return 0;
  }
  const double total = sync.grad_norm(gradients, options.norm_type);
  check(!options.error_if_nonfinite || std::isfinite(total), "clip_gradients: the norm of order ", options.norm_type,
        " of the gradients is ", total, ", so they cannot be scaled; set error_if_nonfinite=false to scale anyway");
  const double scale = *options.max_norm / (total + 1e-6);  // as torch.nn.utils.clip_grad_norm_
  if (scale < 1 || std::isnan(scale))
    for (const Tensor& g : gradients) g.mul_(scale);
  return total;
}

Tensor Fabric::all_reduce(const Tensor& x, std::string_view reduce_op) {
  Tensor out = x.detach().contiguous().clone();
  communicator().all_reduce(out, reduce_op_from(reduce_op)).wait();
  return out;
}

double Fabric::all_reduce(double x, std::string_view reduce_op) {
  communicator().all_reduce(view_over(&x, DType::f64, {1}), reduce_op_from(reduce_op)).wait();
  return x;
}

Tensor Fabric::all_gather(const Tensor& x) {
  Dims shape = x.shape();
  shape.insert(0, communicator().size());
  const Tensor in = x.detach().contiguous(), out = empty(shape, {x.dtype(), x.device()});
  communicator_->all_gather(out, in).wait();
  return out;
}

std::vector<Tensor> Fabric::all_gather_ragged(const Tensor& x) {
  check(x.dim() >= 1, "all_gather_ragged: expects at least 1 dimension, got a number");
  const Tensor in = x.detach().contiguous();
  const int64_t rows = x.size(0);
  std::vector<int64_t> heights(static_cast<size_t>(communicator().size()));
  communicator_
      ->all_gather(view_over(heights.data(), DType::i64, {communicator_->size()}),
                   view_over(const_cast<int64_t*>(&rows), DType::i64, {1}))
      .wait();  // NOLINT: read only
  Dims row = x.shape();
  row.erase(0);
  int64_t total = 0;
  std::vector<int64_t> counts;
  for (const int64_t h : heights) {
    counts.push_back(h * row.numel());
    total += h;
  }
  Dims shape = row;
  shape.insert(0, total);
  const Tensor all = empty(shape, {x.dtype(), x.device()});
  communicator_->all_gather(all, in, counts).wait();
  return split(all, heights, 0);
}

Tensor Fabric::broadcast(const Tensor& x, int src) {
  const bool sender = communicator().rank() == src;
  std::string header;
  if (sender) {
    header = to_string(x.dtype());
    for (const int64_t n : x.shape()) header += " " + std::to_string(n);
  }
  header = communicator_->broadcast_bytes(header, src);
  Dims shape;
  for (size_t at = header.find(' '); at != std::string::npos; at = header.find(' ', at + 1))
    shape.push_back(std::stoll(header.substr(at + 1)));
  const DType dtype = dtype_from_string(header.substr(0, header.find(' ')));
  Tensor out = sender ? x.detach().contiguous().clone() : empty(shape, {dtype, device_});
  communicator_->broadcast(out, src).wait();
  return out;
}

std::string Fabric::broadcast(const std::string& text, int src) { return communicator().broadcast_bytes(text, src); }

void Fabric::barrier() { communicator().barrier().wait(); }

void Fabric::rank_zero_first(const std::function<void()>& f, bool local) {
  const bool first = (local ? local_rank() : global_rank()) == 0;
  const auto attempt = [&](bool mine) {
    std::string error;
    try {
      if (mine) f();
    } catch (const std::exception& e) {
      error = e.what()[0] ? e.what() : "an exception without a text";
    }
    communicator().agree(error);
  };
  attempt(first);
  attempt(!first);
}

void Fabric::print_line(const std::string& line) { std::cout << line + "\n" << std::flush; }

void Fabric::log(const std::string& name, double value, std::optional<int64_t> step) {
  log_dict({{name, value}}, step);
}

void Fabric::log(const std::string& name, const Tensor& value, std::optional<int64_t> step) {
  if (options_.loggers.empty() || !is_global_zero()) return;  // reading a device's value waits for it
  check(value.numel() == 1, "log: the metric '", name, "' has shape ", value.shape(), "; expected a single element");
  log(name, value.item<double>(), step);
}

void Fabric::log_dict(const Metrics& metrics, std::optional<int64_t> step) {
  if (!is_global_zero()) return;
  for (const auto& logger : options_.loggers) logger->log_metrics(metrics, step);
}

uint64_t Fabric::seed_everything(uint64_t seed) { return loom::seed_everything(seed); }

uint64_t seed_everything(uint64_t seed) {
  manual_seed(seed);
  return seed;
}

}  // namespace loom
