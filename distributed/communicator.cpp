#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <numeric>

#include <loom/accelerators/accelerator.h>
#include <loom/distributed/communicator.h>
#include <loom/tensor/storage.h>

namespace loom {

CommunicatorOptions CommunicatorOptions::from_environment() {
  CommunicatorOptions options;
  if (const char* text = std::getenv("LOOM_TIMEOUT")) {
    char* end = nullptr;
    const double seconds = std::strtod(text, &end);
    check(end != text && *end == '\0' && seconds > 0 && seconds < 1e9, "LOOM_TIMEOUT: expected seconds above 0, got '",
          text, "'");
    options.timeout = std::chrono::milliseconds(std::max<int64_t>(1, static_cast<int64_t>(seconds * 1000)));
  }
  if (const char* text = std::getenv("LOOM_CHECK")) {
    const std::string_view value = text;
    check(value == "0" || value == "1", "LOOM_CHECK: expected 0 or 1, got '", value, "'");
    options.checked = value == "1";
  }
  return options;
}

namespace {

constexpr int highest_tag = 32766;  // MPI promises 32767, which Loom keeps

View bytes_view(void* data, size_t count) { return view_over(data, DType::u8, {static_cast<int64_t>(count)}); }

// Throws "op on rank R of N: ..." unless the condition holds.
struct Expectation {
  Collective::Kind kind;
  int rank, size;
  template <class... Args>
  void operator()(bool condition, const Args&... args) const {
    if (!condition) [[unlikely]]  // else not even the kind's text is made
      fail(to_string(kind), " on rank ", rank, " of ", size, ": ", args...);
  }
};

// Which of a collective's two views this rank hands over.
bool uses_out(const Collective& c, int rank) {
  if (c.kind == Collective::barrier || c.kind == Collective::send) return false;
  return c.kind != Collective::gather || c.peer == rank;
}
bool uses_in(const Collective& c, int rank) {
  switch (c.kind) {
    case Collective::all_gather:
    case Collective::reduce_scatter:
    case Collective::gather:
    case Collective::all_to_all:
    case Collective::send:
      return true;
    case Collective::scatter:
      return c.peer == rank;
    default:
      return false;
  }
}

}  // namespace

void Communicator::check_arguments(const Collective& c) const {
  const Expectation expect{c.kind, rank_, size_};
  const auto check_view = [&](const char* which, const View& v) {
    expect(serves(v.device), which, " is on ", v.device, ", which the ", name(), " communicator does not serve");
    expect(v.is_contiguous(), which, " is not dense: shape ", v.shape, ", strides ", v.strides,
           "; make it contiguous first");
    expect(v.data != nullptr || v.numel() == 0, which, " has no memory, expected ", v.numel(), " elements");
  };
  const bool out = uses_out(c, rank_), in = uses_in(c, rank_);
  if (out) check_view(in ? "out" : "data", c.out);
  if (in) check_view(out ? "in" : "data", c.in);
  if (out && in) {
    expect(c.out.dtype == c.in.dtype, "out is ", c.out.dtype, ", in is ", c.in.dtype);
    expect(c.out.device == c.in.device, "out is on ", c.out.device, ", in on ", c.in.device);
  }
  expect(c.peer >= 0 && c.peer < size_, c.between_two() ? "peer " : "root ", c.peer, " is not a rank of the group");
  if (c.between_two()) {
    expect(c.peer != rank_, "the peer is this rank; copy instead");
    expect(c.tag >= 0 && c.tag <= highest_tag, "tag ", c.tag, ", expected 0 to ", highest_tag);
  }
  if (c.kind == Collective::all_reduce || c.kind == Collective::reduce_scatter) {
    const DType dtype = c.out.dtype;
    expect(c.op != ReduceOp::mean || is_floating(dtype), "mean of ", dtype,
           " is not defined; expected a floating dtype");
    expect(dtype != DType::boolean || c.op == ReduceOp::min || c.op == ReduceOp::max, c.op,
           " of boolean is not defined; expected min or max");
  }
  check_sizes(c);
}

void Communicator::check_sizes(const Collective& c) const {
  const Expectation expect{c.kind, rank_, size_};
  const int64_t out = c.out.numel(), in = c.in.numel();
  const auto expect_parts = [&](const char* which, int64_t whole, int64_t part) {
    expect(whole == size_ * part, which, " has ", whole, " elements, expected ", size_, " x ", part);
  };
  switch (c.kind) {
    case Collective::all_gather:
      if (c.counts.empty()) return expect_parts("out", out, in);
      break;
    case Collective::gather:
      return c.peer == rank_ ? expect_parts("out", out, in) : void();
    case Collective::scatter:
      return c.peer == rank_ ? expect_parts("in", in, out) : void();
    case Collective::reduce_scatter:
      return expect_parts("in", in, out);
    case Collective::all_to_all:
      expect(out == in, "out has ", out, " elements, in has ", in);
      return expect(in % size_ == 0, in, " elements do not divide among ", size_, " ranks");
    default:
      return;
  }
  expect(c.counts.size() == static_cast<size_t>(size_), c.counts.size(), " counts, expected one for each of ", size_,
         " ranks");
  for (size_t r = 0; r < c.counts.size(); ++r) expect(c.counts[r] >= 0, "counts[", r, "] is ", c.counts[r]);
  const int64_t own = c.counts[static_cast<size_t>(rank_)];
  expect(in == own, "in has ", in, " elements, expected counts[", rank_, "] = ", own);
  const int64_t total = std::accumulate(c.counts.begin(), c.counts.end(), int64_t{0});
  expect(out == total, "out has ", out, " elements, expected ", total, ", the sum of the counts");
}

Work Communicator::issue(Collective c) {
  check_arguments(c);
  c.sequence = c.between_two() ? messages_++ : sequence_++;
  if (!uses_out(c, rank_)) c.out = {};
  if (!uses_in(c, rank_)) c.in = {};
  if (options_.checked && size_ > 1 && !c.between_two()) compare_fingerprints(c);
  if (observer_) observer_(c);
  return submit(std::move(c));
}

// Goes the same way as the collective itself, past issue: the comparison is neither numbered, compared nor observed.
void Communicator::compare_fingerprints(const Collective& c) {
  Fingerprint own = fingerprint(c);
  std::vector<Fingerprint> all(static_cast<size_t>(size_));
  Collective exchange;
  exchange.kind = Collective::all_gather;
  exchange.sequence = c.sequence;
  exchange.in = bytes_view(&own, sizeof own);
  exchange.out = bytes_view(all.data(), sizeof own * all.size());
  submit(std::move(exchange)).wait();
  const std::string error = mismatch(all);
  check(error.empty(), error);
}

Work Communicator::all_reduce(const View& data, ReduceOp op) {
  return issue({.kind = Collective::all_reduce, .out = data, .op = op});
}
Work Communicator::all_gather(const View& out, const View& in) {
  return issue({.kind = Collective::all_gather, .out = out, .in = in});
}
Work Communicator::all_gather(const View& out, const View& in, std::vector<int64_t> counts) {
  return issue({.kind = Collective::all_gather, .out = out, .in = in, .counts = std::move(counts)});
}
Work Communicator::reduce_scatter(const View& out, const View& in, ReduceOp op) {
  return issue({.kind = Collective::reduce_scatter, .out = out, .in = in, .op = op});
}
Work Communicator::broadcast(const View& data, int root) {
  return issue({.kind = Collective::broadcast, .out = data, .peer = root});
}
Work Communicator::gather(const View& out, const View& in, int root) {
  return issue({.kind = Collective::gather, .out = out, .in = in, .peer = root});
}
Work Communicator::scatter(const View& out, const View& in, int root) {
  return issue({.kind = Collective::scatter, .out = out, .in = in, .peer = root});
}
Work Communicator::all_to_all(const View& out, const View& in) {
  return issue({.kind = Collective::all_to_all, .out = out, .in = in});
}
Work Communicator::send(const View& data, int to, int tag) {
  return issue({.kind = Collective::send, .in = data, .peer = to, .tag = tag});
}
Work Communicator::recv(const View& data, int from, int tag) {
  return issue({.kind = Collective::recv, .out = data, .peer = from, .tag = tag});
}
Work Communicator::barrier() { return issue({.kind = Collective::barrier}); }

std::string Communicator::broadcast_bytes(std::string data, int root) {
  auto length = static_cast<int64_t>(data.size());
  broadcast(view_over(&length, DType::i64, {1}), root).wait();
  data.resize(static_cast<size_t>(length));
  broadcast(bytes_view(data.data(), data.size()), root).wait();
  return data;
}

std::vector<std::string> Communicator::all_gather_bytes(const std::string& data) {
  auto length = static_cast<int64_t>(data.size());
  std::vector<int64_t> lengths(static_cast<size_t>(size_));
  all_gather(view_over(lengths.data(), DType::i64, {size_}), view_over(&length, DType::i64, {1})).wait();
  std::string all(static_cast<size_t>(std::accumulate(lengths.begin(), lengths.end(), int64_t{0})), '\0');
  auto* own = const_cast<char*>(data.data());  // NOLINT: a View is for both directions; `in` is only read
  all_gather(bytes_view(all.data(), all.size()), bytes_view(own, data.size()), lengths).wait();
  std::vector<std::string> out;
  size_t begin = 0;
  for (const int64_t n : lengths) {
    out.push_back(all.substr(begin, static_cast<size_t>(n)));
    begin += static_cast<size_t>(n);
  }
  return out;
}

void Communicator::agree(const std::string& error) {
  int32_t failed = error.empty() ? 0 : 1;
  all_reduce(view_over(&failed, DType::i32, {1}), ReduceOp::max).wait();
  if (failed == 0) return;
  const std::vector<std::string> errors = all_gather_bytes(error);
  for (size_t r = 0; r < errors.size(); ++r)
    if (!errors[r].empty()) throw AgreedError(str("rank ", r, ": ", errors[r]));
}

std::shared_ptr<void> Communicator::allocate(size_t bytes, Device device) {
  const auto storage = std::make_shared<Storage>(bytes, device);
  if (bytes > 0)
    accelerator(device).fill(view_over(storage->data(), DType::u8, {static_cast<int64_t>(bytes)}, device), int64_t{0});
  return {storage, storage->data()};
}

// The boot id tells apart containers and machines that were given the same name.
std::string Communicator::node() {
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  return str(host, ' ', boot);
}

}  // namespace loom
