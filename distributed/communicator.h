// A group of ranks and the collectives between them.
//
// All ranks of a group must issue the same collectives in the same order. Every call returns a Work: the views (and
// what they point to) must stay alive and untouched until it is done. A blocking call is `comm.all_reduce(x).wait()`.
//
// Sums are deterministic: each element is added up in rank order, ((r0 + r1) + r2) + ..., whatever the collective, the
// transport and the size, so that all_reduce and reduce_scatter give the same bits. f16 and bf16 are added in f32 and
// rounded once.
//
// A communicator is used by one thread at a time; abort may come from any. Its destructor waits for what was issued.
//
// On a GPU a collective is a part of the device's work: it comes after what is in the current stream when it is issued,
// and runs in the communication stream; Work::wait makes the current stream wait for it, not the host. How it adds up
// is said by who carries it (nccl.h, staged.h).
//
// To add a communicator: derive, implement `submit`, `split`, `abort` (distributed/README.md).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <loom/accelerators/view.h>
#include <loom/distributed/collective.h>
#include <loom/distributed/work.h>

namespace loom {

struct CommunicatorOptions {
  // How long a collective may wait for its peers before the job ends with the names of the missing ranks.
  std::chrono::milliseconds timeout = std::chrono::minutes(30);
  // Before each collective the ranks compare operation, sequence number, dtype and count. Default: LOOM_CHECK=1.
  bool checked = false;
  static CommunicatorOptions from_environment();  // LOOM_TIMEOUT (seconds), LOOM_CHECK
};

// What Communicator::agree throws: every rank of the group throws it, with the same text.
class AgreedError : public Error {
 public:
  using Error::Error;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  virtual std::string_view name() const = 0;  // "self", "threads", "mpi", "nccl", "staged"
  virtual bool serves(Device device) const { return device.kind == Device::cpu; }

  // Views must be dense and on a device that the communicator serves; counts and dtypes must fit, else Error.
  [[nodiscard]] Work all_reduce(const View& data, ReduceOp op = ReduceOp::sum);  // integral mean: error
  [[nodiscard]] Work all_gather(const View& out, const View& in);                // out: size() x in, in rank order
  [[nodiscard]] Work all_gather(const View& out, const View& in, std::vector<int64_t> counts);  // ragged, in elements
  [[nodiscard]] Work reduce_scatter(const View& out, const View& in, ReduceOp op = ReduceOp::sum);  // in: size() x out
  [[nodiscard]] Work broadcast(const View& data, int root = 0);
  [[nodiscard]] Work gather(const View& out, const View& in, int root = 0);   // out is read on the root only
  [[nodiscard]] Work scatter(const View& out, const View& in, int root = 0);  // in is read on the root only
  [[nodiscard]] Work all_to_all(const View& out, const View& in);             // size() equal blocks
  [[nodiscard]] Work send(const View& data, int to, int tag = 0);             // to another rank; not to itself
  [[nodiscard]] Work recv(const View& data, int from, int tag = 0);           // dtype and count as sent
  [[nodiscard]] Work barrier();

  // Bytes of any length, blocking. The lengths may differ by rank and need not be known before.
  std::string broadcast_bytes(std::string data, int root = 0);
  std::vector<std::string> all_gather_bytes(const std::string& data);

  // Ranks with an equal color form a new group, ordered by (key, rank); color < 0: in no group, gives null. Collective.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  // Ends the group and those it was split from or into: every pending and later call on any rank throws Error with this
  // reason and rank; where the transport cannot (MPI), the job is ended with the reason printed. Callable from any
  // thread.
  virtual void abort(const std::string& reason) noexcept = 0;

  // If any rank passes a non-empty error, all ranks throw AgreedError with the same text: the first failing rank's,
  // prefixed "rank N: ". Collective: the agreement points of setup, save and load.
  void agree(const std::string& error);

  // Zeroed memory on a device that the group serves, for data that it will reduce or gather again and again: where
  // ranks can share memory, the collectives work in it without a copy. Collective, the same size on all ranks; each
  // rank frees its own, at any time.
  virtual std::shared_ptr<void> allocate(size_t bytes, Device device);
  std::shared_ptr<void> allocate(size_t bytes) { return allocate(bytes, Device()); }

  // A text that is equal on the ranks of one node and differs between nodes. Collective.
  virtual std::string node();

  // Called with each collective as it is issued, on the issuing thread (logs, tests). Null: none.
  void set_observer(std::function<void(const Collective&)> observer) { observer_ = std::move(observer); }
  const CommunicatorOptions& options() const { return options_; }

 protected:
  Communicator(int rank, int size, CommunicatorOptions options) : rank_(rank), size_(size), options_(options) {}
  // Starts (or runs) a collective whose arguments have been checked. Issue order is execution order.
  virtual Work submit(Collective c) = 0;

 private:
  Work issue(Collective c);
  void check_arguments(const Collective& c) const;
  void check_sizes(const Collective& c) const;
  void compare_fingerprints(const Collective& c);

  int rank_, size_;
  CommunicatorOptions options_;
  uint64_t sequence_ = 0;  // collectives so far
  uint64_t messages_ = 0;  // send and recv so far: ranks differ in these
  std::function<void(const Collective&)> observer_;
};

// A group of one: every collective is the identity.
std::unique_ptr<Communicator> self_communicator(CommunicatorOptions options = CommunicatorOptions::from_environment());

// Runs f(communicator) on n ranks, each a thread of this process with a context of its own. An exception on one rank
// aborts the group and is rethrown here as Error (the first one, prefixed with its rank; as it is where all ranks
// raised the same text). threads.h has more options.
void run_threads(int n, const std::function<void(Communicator&)>& f,
                 CommunicatorOptions options = CommunicatorOptions::from_environment());

}  // namespace loom
