// SPDX-License-Identifier: Apache-2.0
#include <nccl_hub.h>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <map>
#include <random>
#include <thread>
#include <utility>

#include <loom/distributed/reduction.h>

namespace loom::cuda::emulated {

namespace {

sockaddr_un address_of(const ncclUniqueId& id) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;  // a path that begins with 0 is no file
  std::copy_n(id.internal, std::min(sizeof id.internal, sizeof address.sun_path - 1), address.sun_path + 1);
  return address;
}

DType dtype_of_type(int type) {
  switch (type) {
    case ncclInt32:
      return DType::i32;
    case ncclInt64:
      return DType::i64;
    case ncclFloat16:
      return DType::f16;
    case ncclFloat32:
      return DType::f32;
    case ncclFloat64:
      return DType::f64;
    case ncclBfloat16:
      return DType::bf16;
    default:
      return DType::u8;
  }
}

ReduceOp op_of(int op) {
  constexpr ReduceOp ops[] = {ReduceOp::sum, ReduceOp::product, ReduceOp::max, ReduceOp::min, ReduceOp::mean};
  return ops[op];
}

struct Rank {
  int socket = -1;
  Request request;
  std::string data, answer;
};

class Hub {
 public:
  Hub(int listener, std::vector<Rank> ranks) : listener_(listener), ranks_(std::move(ranks)) {}
  ~Hub() {
    for (const Rank& r : ranks_)
      if (r.socket >= 0) ::close(r.socket);
    ::close(listener_);
  }
  Hub(const Hub&) = delete;
  Hub& operator=(const Hub&) = delete;

  void run() {
    if (!gather_ranks()) return;
    for (bool ended = false; !ended;) {
      for (Rank& r : ranks_)
        if (!receive(r)) return tell(ncclRemoteError);
      if (!alike()) return tell(ncclInternalError);
      ended = ranks_[0].request.kind == Request::finalize;
      answer();
      tell(ncclSuccess);
    }
  }

 private:
  // In the order of their ranks.
  bool gather_ranks() {
    for (size_t missing = 1; missing > 0;) {
      const int socket = ::accept(listener_, nullptr, nullptr);
      Request hello;
      if (socket < 0 || !receive_all(socket, &hello, sizeof hello)) return false;
      if (ranks_.empty()) {
        ranks_.resize(static_cast<size_t>(hello.ranks));
        missing = ranks_.size();
      }
      ranks_[static_cast<size_t>(hello.rank)].socket = socket;
      --missing;
    }
    tell(ncclSuccess);
    return true;
  }

  // Notices when any rank goes, also while this one has nothing to say.
  bool receive(Rank& rank) {
    for (;;) {
      std::vector<pollfd> looks;
      for (const Rank& r : ranks_) {
        const bool this_one = &r == &rank;
        looks.push_back({r.socket, static_cast<short>(this_one ? POLLIN | POLLRDHUP : POLLRDHUP), 0});
      }
      if (::poll(looks.data(), looks.size(), -1) < 0) return false;
      for (const pollfd& look : looks)
        if ((look.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0) return false;
      if ((looks[static_cast<size_t>(&rank - ranks_.data())].revents & POLLIN) != 0) break;
    }
    if (!receive_all(rank.socket, &rank.request, sizeof rank.request)) return false;
    rank.data.resize(rank.request.bytes);
    return receive_all(rank.socket, rank.data.data(), rank.data.size());
  }

  bool alike() const {
    const Request& first = ranks_[0].request;
    return std::ranges::all_of(ranks_, [&](const Rank& r) {
      const Request& own = r.request;
      const bool free = own.kind == Request::split || own.kind == Request::exchange;
      return own.kind == first.kind && (free || (own.type == first.type && own.op == first.op &&
                                                 own.root == first.root && own.count == first.count));
    });
  }

  void tell(ncclResult_t result) {
    for (Rank& r : ranks_) {
      const Answer answer{result, r.answer.size()};
      if (send_all(r.socket, &answer, sizeof answer)) send_all(r.socket, r.answer.data(), r.answer.size());
      r.answer.clear();
    }
  }

  void answer() {
    switch (ranks_[0].request.kind) {
      case Request::all_reduce:
        return reduce(false);
      case Request::reduce_scatter:
        return reduce(true);
      case Request::all_gather:
        for (Rank& to : ranks_)
          for (const Rank& from : ranks_) to.answer += from.data;
        return;
      case Request::broadcast:
        for (Rank& to : ranks_) to.answer = ranks_[static_cast<size_t>(ranks_[0].request.root)].data;
        return;
      case Request::exchange:
        return exchange();
      case Request::split:
        return split();
      default:
        return;
    }
  }

  void reduce(bool scattered) {
    const Request& request = ranks_[0].request;
    const size_t part = request.count * type_bytes(request.type);
    for (size_t to = 0; to < ranks_.size(); ++to) {
      std::vector<const void*> inputs;
      for (const Rank& r : ranks_) inputs.push_back(r.data.data() + (scattered ? to * part : 0));
      std::string& answer = ranks_[to].answer;
      answer.resize(part);
      void* const output = answer.data();
      reduce_in_rank_order(op_of(request.op), dtype_of_type(request.type), static_cast<int64_t>(request.count), inputs,
                           {&output, 1});
    }
  }

  static std::vector<Part> take_parts(const std::string& data, size_t& at) {
    uint64_t length = 0;
    std::copy_n(data.data() + at, sizeof length, reinterpret_cast<char*>(&length));
    std::vector<Part> parts(length);
    at += sizeof length;
    std::copy_n(data.data() + at, length * sizeof(Part), reinterpret_cast<char*>(parts.data()));
    at += length * sizeof(Part);
    return parts;
  }

  // What one rank sends another arrives in the order of sending.
  void exchange() {
    std::map<std::pair<int, int>, std::string> sent;  // from, to
    std::vector<std::vector<Part>> wanted;
    for (int from = 0; const Rank& r : ranks_) {
      size_t at = 0;
      const std::vector<Part> parts = take_parts(r.data, at);
      wanted.push_back(take_parts(r.data, at));
      for (const Part& p : parts) {
        sent[{from, p.peer}] += r.data.substr(at, p.bytes);
        at += p.bytes;
      }
      ++from;
    }
    for (size_t to = 0; to < ranks_.size(); ++to)
      for (const Part& p : wanted[to]) {
        std::string& queue = sent[{p.peer, static_cast<int>(to)}];
        std::string taken = queue.substr(0, p.bytes);
        taken.resize(p.bytes);
        ranks_[to].answer += taken;
        queue.erase(0, std::min<size_t>(queue.size(), p.bytes));
      }
  }

  void split() {
    std::map<int, std::vector<std::pair<int, size_t>>> groups;  // by color: key, rank
    for (size_t r = 0; r < ranks_.size(); ++r)
      if (ranks_[r].request.root >= 0) groups[ranks_[r].request.root].emplace_back(ranks_[r].request.rank, r);
    for (auto& [color, members] : groups) {
      std::ranges::sort(members);
      const ncclUniqueId id = open_hub();
      for (size_t i = 0; i < members.size(); ++i) {
        const Seat seat{id, static_cast<int32_t>(i), static_cast<int32_t>(members.size())};
        ranks_[members[i].second].answer.assign(reinterpret_cast<const char*>(&seat), sizeof seat);
      }
    }
  }

  const int listener_;
  std::vector<Rank> ranks_;
};

}  // namespace

size_t type_bytes(int type) { return item_size(dtype_of_type(type)); }

bool send_all(int socket, const void* data, size_t bytes) {
  for (const auto* at = static_cast<const char*>(data); bytes > 0;) {
    const ssize_t n = ::send(socket, at, bytes, MSG_NOSIGNAL);
    if (n <= 0) return false;
    at += n;
    bytes -= static_cast<size_t>(n);
  }
  return true;
}

bool receive_all(int socket, void* data, size_t bytes) {
  for (auto* at = static_cast<char*>(data); bytes > 0;) {
    const ssize_t n = ::recv(socket, at, bytes, 0);
    if (n <= 0) return false;
    at += n;
    bytes -= static_cast<size_t>(n);
  }
  return true;
}

int connect_to(const ncclUniqueId& id) {
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_un address = address_of(id);
  if (::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return socket;
  ::close(socket);
  return -1;
}

ncclUniqueId open_hub() {
  ncclUniqueId id{};
  std::random_device random;
  const std::string name = str("loom-nccl-", ::getpid(), '-', random(), '-', random());
  std::copy(name.begin(), name.end(), id.internal);
  const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_un address = address_of(id);
  check(
      ::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 && ::listen(listener, 64) == 0,
      "stand-in for NCCL: no socket");
  std::thread([listener] { Hub(listener, {}).run(); }).detach();
  return id;
}

}  // namespace loom::cuda::emulated
