// SPDX-License-Identifier: Apache-2.0
// In place of NCCL: collectives run in the order of streams, over sockets to a hub (nccl_hub.h), between the processes
// of a machine as between threads of one. Sums are in rank order.
//
// Calls are not blocking: a communicator is in progress for a while after the first of its calls, and work of that one
// reaches the stream later. LOOM_EMULATED_NCCL_FAULT="R N" makes the N-th collective of rank R of each communicator
// fail, after its call has returned.
#include <nccl.h>

#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <sstream>
#include <thread>
#include <utility>

#include <nccl_hub.h>
#include <queues.h>

using namespace loom::cuda::emulated;

namespace {

// A call, and what becomes of it.
struct Op {
  Request request;
  std::function<std::string()> data;                // what this rank sends, read when the stream has come there
  std::function<void(const std::string&)> receive;  // the answer
  std::atomic<bool> done = false;
};

// What a communicator and the streams' tasks share: it outlives the communicator.
class Member {
 public:
  Member(const ncclUniqueId& id, int ranks, int rank) : ranks(ranks), rank(rank) {
    read_fault();
    thread_ = std::thread([this, id] { run(id); });
  }
  ~Member() { end(); }
  Member(const Member&) = delete;
  Member& operator=(const Member&) = delete;

  const int ranks, rank;
  std::atomic<int> state = ncclInProgress;
  std::atomic<int> in_graphs = 0;  // calls

  void post(const std::shared_ptr<Op>& op) {
    const std::lock_guard lock(mutex_);
    ops_.push_back(op);
    changed_.notify_all();
  }
  // Nothing is done any more; work in streams goes on without.
  void end() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
      if (socket_ >= 0) ::shutdown(socket_, SHUT_RDWR);
      changed_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
    if (launch.joinable()) launch.join();
    if (socket_ >= 0) ::close(std::exchange(socket_, -1));
  }
  bool ended() const { return ended_; }
  void wait_for_graphs() const {
    while (in_graphs > 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  bool is_faulty() { return ++collectives_ == fault_at_; }

  std::atomic<bool> launched = false;
  std::thread launch;  // of the first call

 private:
  void read_fault() {
    const char* const text = std::getenv("LOOM_EMULATED_NCCL_FAULT");
    if (text == nullptr) return;
    int who = -1;
    std::istringstream(text) >> who >> fault_at_;
    if (who != rank) fault_at_ = 0;
  }

  void run(const ncclUniqueId& id) {
    {
      const std::lock_guard lock(mutex_);
      socket_ = connect_to(id);
    }
    Request hello;
    hello.rank = rank;
    hello.ranks = ranks;
    Answer welcome;
    if (!send_all(socket_, &hello, sizeof hello) || !receive_all(socket_, &welcome, sizeof welcome)) return fail();
    state = ncclSuccess;
    for (;;) {
      std::shared_ptr<Op> op;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return ended_ || !ops_.empty(); });
        if (ended_) return;
        op = std::move(ops_.front());
        ops_.pop_front();
      }
      if (!carry_out(*op)) return fail();
      op->done = true;
    }
  }
  bool carry_out(Op& op) {
    const std::string data = op.data ? op.data() : "";
    op.request.bytes = data.size();
    Answer answer;
    if (!send_all(socket_, &op.request, sizeof op.request) || !send_all(socket_, data.data(), data.size()))
      return false;
    if (!receive_all(socket_, &answer, sizeof answer) || answer.result != ncclSuccess) return false;
    std::string received(answer.bytes, '\0');
    if (!receive_all(socket_, received.data(), received.size())) return false;
    if (op.receive && !ended_) op.receive(received);
    return true;
  }
  void fail() {
    if (!ended_) state = ncclRemoteError;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Op>> ops_;
  std::atomic<bool> ended_ = false;
  int socket_ = -1;
  int collectives_ = 0, fault_at_ = 0;
  std::thread thread_;
};

}  // namespace

struct ncclComm {
  std::shared_ptr<Member> member;
};

namespace {

ncclComm_t join(const ncclUniqueId& id, int ranks, int rank) {
  return new ncclComm{std::make_shared<Member>(id, ranks, rank)};
}

// A call within a group.
struct Call {
  ncclComm_t comm;
  cudaStream_t stream;
  std::shared_ptr<Op> op;  // null: a message
  bool sends = false;
  int peer = 0;
  void* memory = nullptr;
  size_t bytes = 0;
};
thread_local int depth = 0;
thread_local std::vector<Call> calls;

std::string bytes_at(const void* data, size_t bytes) { return {static_cast<const char*>(data), bytes}; }

// The steps of a call in a stream.
std::function<bool()> steps_of(const std::shared_ptr<Member>& member, const std::shared_ptr<Op>& op) {
  return [member, op, posted = false]() mutable {
    if (member->ended()) return true;
    if (!std::exchange(posted, true)) {
      if (member->is_faulty())
        member->state = ncclSystemError;
      else
        member->post(op);
    }
    return op->done.load();
  };
}

// A communicator does not end before all graphs have gone that hold some of its calls.
struct InGraph {
  explicit InGraph(std::shared_ptr<Member> m) : member(std::move(m)) { ++member->in_graphs; }
  ~InGraph() { --member->in_graphs; }
  InGraph(const InGraph&) = delete;
  InGraph& operator=(const InGraph&) = delete;
  const std::shared_ptr<Member> member;
};

void put_in_stream(const std::shared_ptr<Member>& member, const std::shared_ptr<Op>& op, cudaStream_t stream) {
  if (!place_of(stream)) return enqueue_outside(stream, [&] { return steps_of(member, op); });
  enqueue_outside(stream, [held = std::make_shared<InGraph>(member), op] {
    auto again = std::make_shared<Op>();
    again->request = op->request;
    again->data = op->data;
    again->receive = op->receive;
    return steps_of(held->member, again);
  });
}

// The first call of a communicator connects its ranks: that takes a while, in a thread of the library's.
ncclResult_t launch(ncclComm_t comm, const std::shared_ptr<Op>& op, cudaStream_t stream) {
  const std::shared_ptr<Member>& member = comm->member;
  if (member->launched.exchange(true)) {
    put_in_stream(member, op, stream);
    return ncclSuccess;
  }
  member->state = ncclInProgress;
  member->launch = std::thread([m = member.get(), keeper = std::weak_ptr(member), op, stream] {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (const auto shared = keeper.lock()) put_in_stream(shared, op, stream);
    int expected = ncclInProgress;
    m->state.compare_exchange_strong(expected, ncclSuccess);
  });
  return ncclInProgress;
}

template <class T>
void append(std::string& to, const T& value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// All messages of a group are one exchange.
std::shared_ptr<Op> exchange_of(const std::vector<Call>& messages) {
  auto op = std::make_shared<Op>();
  op->request.kind = Request::exchange;
  op->data = [messages] {
    std::string lists[2], sent;
    uint64_t lengths[2] = {};
    for (const Call& c : messages) {
      const int list = c.sends ? 0 : 1;
      append(lists[list], Part{c.peer, c.bytes});
      ++lengths[list];
      if (c.sends) sent += bytes_at(c.memory, c.bytes);
    }
    std::string out;
    append(out, lengths[0]);
    out += lists[0];
    append(out, lengths[1]);
    return out + lists[1] + sent;
  };
  op->receive = [messages](const std::string& answer) {
    size_t at = 0;
    for (const Call& c : messages) {
      if (c.sends) continue;
      std::memcpy(c.memory, answer.data() + at, c.bytes);
      at += c.bytes;
    }
  };
  return op;
}

ncclResult_t end_group() {
  ncclResult_t result = ncclSuccess;
  const auto note = [&](ncclResult_t r) { result = r == ncclSuccess ? result : r; };
  std::vector<Call> messages;
  for (const Call& c : std::exchange(calls, {}))
    if (c.op == nullptr)
      messages.push_back(c);
    else
      note(launch(c.comm, c.op, c.stream));
  if (!messages.empty()) note(launch(messages[0].comm, exchange_of(messages), messages[0].stream));
  return result;
}

ncclResult_t add(const Call& call) {
  if (call.comm->member->state == ncclInProgress) return ncclInvalidUsage;
  calls.push_back(call);
  return depth > 0 ? ncclSuccess : end_group();
}

// out takes the answer.
ncclResult_t collective(Request::Kind kind, const void* in, size_t bytes, void* out, size_t count, ncclDataType_t type,
                        int op, int root, ncclComm_t comm, cudaStream_t stream) {
  auto call = std::make_shared<Op>();
  call->request.kind = kind;
  call->request.type = type;
  call->request.op = op;
  call->request.root = root;
  call->request.count = count;
  call->data = [=] { return bytes_at(in, bytes); };
  call->receive = [=](const std::string& answer) { std::memcpy(out, answer.data(), answer.size()); };
  return add({comm, stream, std::move(call)});
}

}  // namespace

ncclResult_t ncclGetVersion(int* version) { return *version = 22809, ncclSuccess; }
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) { return *id = open_hub(), ncclSuccess; }

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
  if (config->blocking != 0) return ncclInvalidUsage;
  *comm = join(id, ranks, rank);
  return ncclInProgress;
}

// The part is there some time after the call, in the place that was given.
ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* part, ncclConfig_t* config) {
  if (config->blocking != 0) return ncclInvalidUsage;
  auto op = std::make_shared<Op>();
  op->request.kind = Request::split;
  op->request.root = color;
  op->request.rank = key;
  op->receive = [part, member = comm->member.get()](const std::string& answer) {
    if (!answer.empty()) {
      Seat seat;
      std::memcpy(&seat, answer.data(), sizeof seat);
      std::atomic_ref<ncclComm_t>(*part).store(join(seat.id, seat.ranks, seat.rank));
    }
    member->state = ncclSuccess;
  };
  comm->member->state = ncclInProgress;
  comm->member->post(op);
  return ncclInProgress;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  auto op = std::make_shared<Op>();
  op->request.kind = Request::finalize;
  op->receive = [member = comm->member.get()](const std::string&) {
    while (member->in_graphs > 0 && !member->ended()) std::this_thread::sleep_for(std::chrono::microseconds(100));
    member->state = ncclSuccess;
  };
  comm->member->state = ncclInProgress;
  comm->member->post(op);
  return ncclInProgress;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  comm->member->end();
  comm->member->wait_for_graphs();
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) { return ncclCommAbort(comm); }

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  *state = static_cast<ncclResult_t>(comm->member->state.load());
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclSystemError:
      return "unhandled system error";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    case ncclInvalidUsage:
      return "invalid usage";
    default:
      return "internal error";
  }
}
const char* ncclGetLastError(ncclComm_t) { return ""; }

ncclResult_t ncclAllReduce(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  return collective(Request::all_reduce, in, count * type_bytes(type), out, count, type, op, 0, comm, stream);
}
ncclResult_t ncclReduceScatter(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
  const size_t bytes = count * type_bytes(type) * static_cast<size_t>(comm->member->ranks);
  return collective(Request::reduce_scatter, in, bytes, out, count, type, op, 0, comm, stream);
}
ncclResult_t ncclAllGather(const void* in, void* out, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  return collective(Request::all_gather, in, count * type_bytes(type), out, count, type, 0, 0, comm, stream);
}
ncclResult_t ncclBroadcast(const void* in, void* out, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  const size_t bytes = root == comm->member->rank ? count * type_bytes(type) : 0;
  return collective(Request::broadcast, in, bytes, out, count, type, 0, root, comm, stream);
}
ncclResult_t ncclSend(const void* in, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return add({comm, stream, nullptr, true, peer, const_cast<void*>(in), count * type_bytes(type)});
}
ncclResult_t ncclRecv(void* out, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  return add({comm, stream, nullptr, false, peer, out, count * type_bytes(type)});
}
ncclResult_t ncclGroupStart() { return ++depth, ncclSuccess; }
ncclResult_t ncclGroupEnd() { return --depth > 0 ? ncclSuccess : end_group(); }
