#include <loom/distributed/collective.h>

#include <algorithm>

namespace loom {

std::string to_string(ReduceOp op) {
  constexpr const char* names[] = {"sum", "mean", "min", "max", "product"};
  return names[static_cast<int>(op)];
}

std::string to_string(Collective::Kind kind) {
  constexpr const char* names[] = {"all_reduce", "all_gather", "reduce_scatter", "broadcast", "gather",
                                   "scatter",    "all_to_all", "send",           "recv",      "barrier"};
  return names[static_cast<int>(kind)];
}

std::string to_string(const Collective& c) { return to_string(fingerprint(c)); }

namespace {

bool reduces(Collective::Kind kind) { return kind == Collective::all_reduce || kind == Collective::reduce_scatter; }

bool has_peer(Collective::Kind kind) {
  return kind == Collective::broadcast || kind == Collective::gather || kind == Collective::scatter ||
         kind == Collective::send || kind == Collective::recv;
}

// The view whose size every rank knows.
const View& part(const Collective& c) {
  switch (c.kind) {
    case Collective::gather:
    case Collective::all_to_all:
    case Collective::send:
      return c.in;
    case Collective::all_gather:
      return c.counts.empty() ? c.in : c.out;
    default:
      return c.out;
  }
}

uint64_t hash_of(const std::vector<int64_t>& counts) {
  uint64_t hash = 0;
  for (const int64_t n : counts) hash = (hash ^ static_cast<uint64_t>(n)) * 0x9e3779b97f4a7c15u + 1;
  return hash;
}

}  // namespace

profile::Description description(const Collective& c, int size) {
  const View& v = part(c);
  profile::Description out{to_string(c.kind)};
  out.args =
      str("\"bytes\": ", std::max(c.out.data == nullptr ? 0 : c.out.bytes(), c.in.data == nullptr ? 0 : c.in.bytes()),
          ", \"dtype\": \"", v.dtype, "\", \"Group size\": ", size, ", \"sequence\": ", c.sequence);
  if (reduces(c.kind)) out.args += str(", \"op\": \"", to_string(c.op), '"');
  if (has_peer(c.kind)) out.args += str(", \"peer\": ", c.peer);
  return out;
}

Fingerprint fingerprint(const Collective& c) {
  Fingerprint f;
  f.kind = c.kind;
  f.sequence = c.sequence;
  if (c.kind == Collective::barrier) return f;
  f.dtype = part(c).dtype;
  f.count = part(c).numel();
  f.parts = hash_of(c.counts);
  if (reduces(c.kind)) f.op = c.op;
  if (has_peer(c.kind)) f.peer = c.peer;
  if (c.between_two()) f.tag = c.tag;
  return f;
}

std::string to_string(const Fingerprint& f) {
  std::string out = str(to_string(f.kind), " #", f.sequence);
  if (f.kind == Collective::barrier) return out;
  out += str(' ', f.dtype, '[', f.count, ']');
  if (reduces(f.kind)) return out + ' ' + to_string(f.op);
  if (f.kind == Collective::send) return out + str(" to ", f.peer, " tag ", f.tag);
  if (f.kind == Collective::recv) return out + str(" from ", f.peer, " tag ", f.tag);
  return f.peer == 0 ? out : out + str(" root ", f.peer);
}

std::string mismatch(std::span<const Fingerprint> ranks) {
  for (size_t r = 1; r < ranks.size(); ++r) {
    if (ranks[r] == ranks[0]) continue;
    std::string out =
        str("collective mismatch: rank 0 is in ", to_string(ranks[0]), ", rank ", r, " is in ", to_string(ranks[r]));
    if (ranks[r].parts != ranks[0].parts) out += " (with other counts of the ranks)";
    return out;
  }
  return {};
}

std::string unexpected_message(const Collective& recv, int rank, DType sent, int64_t count) {
  return str("recv: rank ", rank, " expects ", recv.out.dtype, '[', recv.out.numel(), "] with tag ", recv.tag,
             ", rank ", recv.peer, " sent ", sent, '[', count, ']');
}

}  // namespace loom
