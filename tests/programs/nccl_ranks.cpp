// SPDX-License-Identifier: Apache-2.0
// Ranks with GPUs, under mpirun: what is true of every communicator, on a machine's own NCCL. Rank 0 prints a line a
// check, PASS or FAIL; the status is 1 where one failed.
//
//   mpirun -n 2 nccl_ranks collectives|ddp|timeout|abort|killed [staged]
//
// timeout, abort and killed end the job, as they have to; their line comes before. Where the machine has fewer GPUs
// than ranks, they share them: NCCL is told that each rank is a host of its own (distributed/README.md).
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <thread>

#include <loom/accelerators/accelerator.h>
#include <loom/accelerators/cuda.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/ops.h>
#include <loom/distributed/ddp.h>
#include <loom/distributed/mpi.h>
#include <loom/distributed/nccl.h>
#include <loom/distributed/staged.h>
#include <loom/nn/linear.h>
#include <loom/nn/optim/sgd.h>
#include <loom/tensor/create.h>

using namespace loom;

namespace {

// NCCL refuses two ranks on one GPU of one host, so that each gets a host of its own; what they say goes over the
// loopback.
void share_gpus(int rank) {
  const std::pair<const char*, std::string> settings[] = {
      {"NCCL_HOSTID", str("rank", rank)}, {"NCCL_SOCKET_IFNAME", "lo"}, {"NCCL_IB_DISABLE", "1"},
      {"NCCL_P2P_DISABLE", "1"},          {"NCCL_SHM_DISABLE", "1"},    {"NCCL_NVLS_ENABLE", "0"},
      {"NCCL_MNNVL_ENABLE", "0"},         {"NCCL_RAS_ENABLE", "0"},     {"NCCL_ALGO", "Ring"},
      {"NCCL_PROTO", "Simple"},           {"NCCL_MAX_CTAS", "4"}};
  for (const auto& [name, value] : settings) setenv(name, value.c_str(), 0);
}

struct Ranks {
  Communicator& comm;
  Device device;
  int failed = 0;

  // On all ranks; the line is rank 0's.
  void say(const std::string& name, const std::string& error) {
    std::string all;
    for (const std::string& e : comm.all_gather_bytes(error))
      if (!e.empty() && all.empty()) all = e;
    if (!all.empty()) ++failed;
    if (comm.rank() == 0)
      std::cout << (all.empty() ? "PASS " : "FAIL ") << name << (all.empty() ? "" : ": ") << all << std::endl;
  }
};

// Rank r's element i.
double value_of(DType dtype, int rank, int64_t i) {
  const auto mixed =
      static_cast<double>((static_cast<uint64_t>(i + 1) * 2654435761u + static_cast<uint64_t>(rank) * 40503u) % 1009);
  if (dtype == boolean) return mixed > 504 ? 1 : 0;
  return is_integral(dtype) ? std::fmod(mixed, 5) : mixed / 504.5 - 1;
}

Tensor values(DType dtype, int rank, int64_t count, int64_t begin = 0) {
  std::vector<double> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(value_of(dtype, rank, begin + i));
  return from_vector(out, {count}, {f64, Device()}).to(dtype);
}

// In rank order, in f64.
Tensor reduced(ReduceOp op, DType dtype, int ranks, int64_t count, int64_t begin = 0) {
  std::vector<double> out;
  for (int64_t i = 0; i < count; ++i) {
    const Tensor own = values(dtype, 0, 1, begin + i).to(f64);
    double total = own.item<double>();
    for (int r = 1; r < ranks; ++r) {
      const double x = values(dtype, r, 1, begin + i).to(f64).item<double>();
      total = op == ReduceOp::min       ? std::min(total, x)
              : op == ReduceOp::max     ? std::max(total, x)
              : op == ReduceOp::product ? total * x
                                        : total + x;
    }
    out.push_back(op == ReduceOp::mean ? total / ranks : total);
  }
  return from_vector(out, {count}, {f64, Device()});
}

std::string differs(const Tensor& given, const Tensor& expected, const std::string& what) {
  const double unit = given.dtype() == bf16 ? 3e-2 : given.dtype() == f16 ? 4e-3 : given.dtype() == f32 ? 1e-6 : 1e-14;
  const Tensor here = given.to(Device()).to(f64), wanted = expected.to(Device()).to(f64);
  if (here.numel() == 0) return {};
  const double off = (abs(here - wanted) - (abs(wanted) + 1.0) * unit).max().item<double>();
  return off <= 0 ? "" : str(what, " is off by ", off, " beyond the tolerance");
}

std::string check_reductions(const Ranks& r, DType dtype, int64_t n) {
  const int size = r.comm.size(), rank = r.comm.rank();
  std::string error;
  for (const ReduceOp op : {ReduceOp::sum, ReduceOp::mean, ReduceOp::min, ReduceOp::max, ReduceOp::product}) {
    if (is_integral(dtype) && op == ReduceOp::mean) continue;
    if (dtype == boolean && op != ReduceOp::min && op != ReduceOp::max) continue;
    const Tensor all = values(dtype, rank, n).to(r.device);
    r.comm.all_reduce(all, op).wait();
    error += differs(all, reduced(op, dtype, size, n), "all_reduce " + to_string(op));
    const Tensor in = values(dtype, rank, n * size).to(r.device), out = empty({n}, {dtype, r.device});
    r.comm.reduce_scatter(out, in, op).wait();
    error += differs(out, reduced(op, dtype, size, n, n * rank), "reduce_scatter " + to_string(op));
  }
  return error;
}

Tensor of_all_ranks(DType dtype, int ranks, int64_t n) {
  std::vector<Tensor> parts;
  parts.reserve(static_cast<size_t>(ranks));
  for (int q = 0; q < ranks; ++q) parts.push_back(values(dtype, q, n));
  return cat(parts, 0);
}

std::string check_movements(const Ranks& r, DType dtype, int64_t n) {
  const int size = r.comm.size(), rank = r.comm.rank(), last = size - 1;
  const auto room = [&](int64_t count) { return empty({count}, {dtype, r.device}); };
  const Tensor own = values(dtype, rank, n).to(r.device), everything = of_all_ranks(dtype, size, n);
  std::string error;
  const Tensor gathered = room(n * size);
  r.comm.all_gather(gathered, own).wait();
  error += differs(gathered, everything, "all_gather");
  std::vector<int64_t> counts;
  std::vector<Tensor> parts;
  for (int q = 0; q < size; ++q) {
    counts.push_back((q + 1) % 3 * n);
    parts.push_back(values(dtype, q, counts.back()));
  }
  const Tensor ragged = room(cat(parts, 0).numel());
  r.comm.all_gather(ragged, parts[static_cast<size_t>(rank)].to(r.device), counts).wait();
  error += differs(ragged, cat(parts, 0), "ragged all_gather");
  const Tensor sent = values(dtype, rank, n).to(r.device);
  r.comm.broadcast(sent, last).wait();
  error += differs(sent, values(dtype, last, n), "broadcast");
  const Tensor at_root = room(rank == last ? n * size : 0), back = room(n);
  r.comm.gather(at_root, own, last).wait();
  if (rank == last) error += differs(at_root, everything, "gather");
  r.comm.scatter(back, at_root, last).wait();
  error += differs(back, own, "scatter");
  const Tensor blocks = values(dtype, rank, n * size).to(r.device), turned = room(n * size);
  r.comm.all_to_all(turned, blocks).wait();
  parts.clear();
  for (int q = 0; q < size; ++q) parts.push_back(values(dtype, q, n, n * rank));
  error += differs(turned, cat(parts, 0), "all_to_all");
  if (size == 1) return error;
  const Tensor in = room(n);
  const Work arrived = r.comm.recv(in, (rank + last) % size, 3), gone = r.comm.send(own, (rank + 1) % size, 3);
  for (const Work& w : {gone, arrived}) w.wait();
  return error + differs(in, values(dtype, (rank + last) % size, n), "recv");
}

void collectives(Ranks& r) {
  for (const DType dtype : {f64, f32, f16, bf16, i64, i32, u8, boolean})
    for (const int64_t n : {int64_t{0}, int64_t{1}, int64_t{7}, int64_t{1025}}) {
      r.say(str("reductions ", dtype, '[', n, ']'), check_reductions(r, dtype, n));
      r.say(str("movements ", dtype, '[', n, ']'), check_movements(r, dtype, n));
    }
  const auto half = r.comm.split(r.comm.rank() % 2, 0);
  const Tensor x = full({3}, 1, TensorOptions(f32, r.device));
  half->all_reduce(x).wait();
  r.say("split", differs(x, full({3}, half->size(), Device()), "its sum"));
}

struct Net {
  nn::Linear first{6, 32}, second{32, 3};
  Tensor operator()(const Tensor& x) const { return second(tanh(first(x))); }
  LOOM_MEMBERS(first, second)
};

// Rows [begin, begin + count) of an endless table.
Tensor rows(int64_t begin, int64_t count, int64_t width, Device device) {
  return values(f64, 0, count * width, begin * width).to(f32).reshape({count, width}).to(device);
}

// Ten steps of SGD, of these ranks as one process on the whole batch.
void ddp(Ranks& r) {
  const auto train = [&](Communicator& ranks, int64_t each) {
    manual_seed(1);
    Net net;
    nn::to(net, r.device);
    DistributedDataParallel parallel(ranks, nn::parameters(net), {}, {.bucket_cap_mb = 1e-4});
    optim::SGD sgd(nn::parameters(net), {.lr = 0.1});
    for (int64_t step = 0; step < 10; ++step) {
      const int64_t begin = 100 * step + each * ranks.rank();
      sgd.zero_grad();
      parallel
          .forward([&] { return mse_loss(net(rows(begin, each, 6, r.device)), rows(begin + 7, each, 3, r.device)); })
          .backward();
      sgd.step();
    }
    std::vector<Tensor> out;
    for (const NamedTensor& p : nn::parameters(net)) out.push_back(p.tensor.detach().reshape({-1}));
    return cat(out, 0).to(Device());
  };
  const auto alone = self_communicator();
  const Tensor spread = train(r.comm, 8), whole = train(*alone, 8 * r.comm.size());
  r.say("ddp is one process on the whole batch", differs(spread, whole, "a parameter"));
  const View bytes = spread;
  const auto all = r.comm.all_gather_bytes(std::string(static_cast<const char*>(bytes.data), bytes.bytes()));
  r.say("ddp has the same bits on all ranks", all[0] == all.back() ? "" : "it has not");
}

// Rank 1 stays away.
void timeout(Ranks& r) {
  const Tensor x = full({5}, 1, TensorOptions(f32, r.device));
  r.comm.all_reduce(x).wait();
  synchronize(r.device);
  r.comm.barrier().wait();
  if (r.comm.rank() == 1) std::this_thread::sleep_for(std::chrono::minutes(1));
  std::string error;
  try {
    r.comm.all_reduce(x, ReduceOp::mean).wait();
    static_cast<void>(x.to_vector<float>());
    r.comm.all_reduce(x).wait();
  } catch (const Error& e) {
    error = e.what();
  }
  std::cout << (error.find("timeout after") == 0 && error.find("all_reduce #2 f32[5] mean") < 40 ? "PASS" : "FAIL")
            << " timeout on rank " << r.comm.rank() << ": " << error << std::endl;
  std::this_thread::sleep_for(std::chrono::minutes(1));  // the watchdog ends the job
}

void end_by_rank_1(Ranks& r, bool killed) {
  const Tensor x = full({5}, 1, TensorOptions(f32, r.device));
  r.comm.all_reduce(x).wait();
  synchronize(r.device);
  r.comm.barrier().wait();
  if (r.comm.rank() == 1 && killed) std::raise(SIGKILL);
  if (r.comm.rank() == 1) r.comm.abort("enough");
  r.comm.all_reduce(x).wait();
  synchronize(r.device);
  std::this_thread::sleep_for(std::chrono::minutes(1));
}

int run(const std::string& name, bool staged) {
  const std::shared_ptr<Communicator> host = mpi_communicator();
  const int gpus = device_count(Device::cuda);
  if (gpus == 0) {
    if (host->rank() == 0) std::cout << "skipped: no CUDA device: " << cuda_description() << std::endl;
    return 77;
  }
  const NodePlacement place = node_placement(*host);
  if (place.local_size > gpus) share_gpus(host->rank());
  const Device device(Device::cuda, place.local_rank % gpus);
  const std::unique_ptr<Communicator> comm =
      staged ? staged_communicator(host, device) : nccl_communicator(host, device);
  Ranks ranks{*comm, device};
  if (comm->rank() == 0)
    std::cout << (staged ? "staged" : nccl_description()) << ", " << comm->size() << " ranks on " << gpus << " GPUs"
              << std::endl;
  if (name == "collectives") collectives(ranks);
  if (name == "ddp") ddp(ranks);
  if (name == "timeout") timeout(ranks);
  if (name == "abort" || name == "killed") end_by_rank_1(ranks, name == "killed");
  return ranks.failed == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc > 1 ? argv[1] : "collectives", argc > 2 && std::string_view(argv[2]) == "staged");
  } catch (const std::exception& e) {
    abort_job(e.what());
  }
}
