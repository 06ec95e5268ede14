#include <loom/distributed/nccl/enqueue.h>

#include <numeric>

#include <loom/accelerators/accelerator.h>

namespace loom::nccl {

namespace {

struct Call {
  const Collective& c;
  ncclComm_t comm;
  int rank, size;
  cudaStream_t stream;

  // Elements [begin, begin + n) of a view.
  static View part(const View& whole, int64_t begin, int64_t n) {
    auto* const at = whole.as<std::byte>() + static_cast<size_t>(begin) * item_size(whole.dtype);
    return view_over(at, whole.dtype, {n}, whole.device);
  }
  static size_t count(const View& v) { return static_cast<size_t>(v.numel()); }
  static ncclDataType_t type(const View& v) { return type_of(v.dtype); }
  void check(ncclResult_t result, const char* name) const { check_call(result, name, comm); }

  void send(const View& from, int to) const {
    check(ncclSend(from.data, count(from), type(from), to, comm, stream), "ncclSend");
  }
  void recv(const View& to, int from) const {
    check(ncclRecv(to.data, count(to), type(to), from, comm, stream), "ncclRecv");
  }
};

// What stays on this rank does not go through the library.
void copy_own(const Call& call, const View& to, const View& from) {
  if (to.data == from.data || to.numel() == 0) return;
  const StreamScope scope(Stream(to.device, call.stream));
  accelerator(to.device).copy(to, from);
}

void all_gather(const Call& call) {
  const Collective& c = call.c;
  if (c.counts.empty())
    return call.check(ncclAllGather(c.in.data, c.out.data, Call::count(c.in), Call::type(c.in), call.comm, call.stream),
                      "ncclAllGather");
  int64_t begin = 0;
  for (size_t r = 0; r < c.counts.size(); ++r) {
    const View place = Call::part(c.out, begin, c.counts[r]);
    const int root = static_cast<int>(r);
    begin += c.counts[r];
    if (place.numel() == 0) continue;
    const void* const from = root == call.rank ? c.in.data : place.data;
    call.check(ncclBroadcast(from, place.data, Call::count(place), Call::type(place), root, call.comm, call.stream),
               "ncclBroadcast");
  }
}

void gather(const Call& call) {
  const Collective& c = call.c;
  if (c.peer != call.rank) return call.send(c.in, c.peer);
  for (int r = 0; r < call.size; ++r)
    if (r != call.rank) call.recv(Call::part(c.out, r * c.in.numel(), c.in.numel()), r);
}

void scatter(const Call& call) {
  const Collective& c = call.c;
  if (c.peer != call.rank) return call.recv(c.out, c.peer);
  for (int r = 0; r < call.size; ++r)
    if (r != call.rank) call.send(Call::part(c.in, r * c.out.numel(), c.out.numel()), r);
}

void all_to_all(const Call& call) {
  const Collective& c = call.c;
  const int64_t n = c.in.numel() / call.size;
  for (int r = 0; r < call.size; ++r)
    if (r != call.rank) {
      call.send(Call::part(c.in, r * n, n), r);
      call.recv(Call::part(c.out, r * n, n), r);
    }
}

// Before the group, whose calls may begin at its end only.
void copy_own_parts(const Call& call) {
  const Collective& c = call.c;
  const bool root = c.peer == call.rank;
  if (c.kind == Collective::gather && root)
    copy_own(call, Call::part(c.out, call.rank * c.in.numel(), c.in.numel()), Call::part(c.in, 0, c.in.numel()));
  if (c.kind == Collective::scatter && root)
    copy_own(call, Call::part(c.out, 0, c.out.numel()), Call::part(c.in, call.rank * c.out.numel(), c.out.numel()));
  if (c.kind == Collective::all_to_all) {
    const int64_t n = c.in.numel() / call.size;
    copy_own(call, Call::part(c.out, call.rank * n, n), Call::part(c.in, call.rank * n, n));
  }
}

void issue(const Call& call) {
  const Collective& c = call.c;
  switch (c.kind) {
    case Collective::all_reduce:
      return call.check(ncclAllReduce(c.out.data, c.out.data, Call::count(c.out), Call::type(c.out), op_of(c.op),
                                      call.comm, call.stream),
                        "ncclAllReduce");
    case Collective::reduce_scatter:
      return call.check(ncclReduceScatter(c.in.data, c.out.data, Call::count(c.out), Call::type(c.out), op_of(c.op),
                                          call.comm, call.stream),
                        "ncclReduceScatter");
    case Collective::broadcast:
      return call.check(
          ncclBroadcast(c.out.data, c.out.data, Call::count(c.out), Call::type(c.out), c.peer, call.comm, call.stream),
          "ncclBroadcast");
    case Collective::all_gather:
      return all_gather(call);
    case Collective::gather:
      return gather(call);
    case Collective::scatter:
      return scatter(call);
    case Collective::all_to_all:
      return all_to_all(call);
    default:
      fail(to_string(c), ": not a collective of NCCL");
  }
}

// Calls within its life are one. It ends also where one of them is refused, as the library counts per thread.
class GroupOfCalls {
 public:
  explicit GroupOfCalls(const Call& call) : call_(call) { call.check(ncclGroupStart(), "ncclGroupStart"); }
  void end() {
    open_ = false;
    call_.check(ncclGroupEnd(), "ncclGroupEnd");
  }
  ~GroupOfCalls() {
    if (open_) (void)ncclGroupEnd();
  }
  GroupOfCalls(const GroupOfCalls&) = delete;
  GroupOfCalls& operator=(const GroupOfCalls&) = delete;

 private:
  const Call& call_;
  bool open_ = true;
};

}  // namespace

void enqueue(const Collective& c, ncclComm_t comm, int rank, int size, cudaStream_t stream) {
  const Call call{c, comm, rank, size, stream};
  copy_own_parts(call);
  GroupOfCalls group(call);
  issue(call);
  group.end();
}

}  // namespace loom::nccl
