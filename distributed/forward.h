// A collective of one communicator as a collective of another.
#pragma once

#include <loom/distributed/communicator.h>

namespace loom {

// Issues it on `to`, whose ranks are the same.
inline Work forward_to(Communicator& to, const Collective& c) {
  switch (c.kind) {
    case Collective::all_reduce:
      return to.all_reduce(c.out, c.op);
    case Collective::all_gather:
      return c.counts.empty() ? to.all_gather(c.out, c.in) : to.all_gather(c.out, c.in, c.counts);
    case Collective::reduce_scatter:
      return to.reduce_scatter(c.out, c.in, c.op);
    case Collective::broadcast:
      return to.broadcast(c.out, c.peer);
    case Collective::gather:
      return to.gather(c.out, c.in, c.peer);
    case Collective::scatter:
      return to.scatter(c.out, c.in, c.peer);
    case Collective::all_to_all:
      return to.all_to_all(c.out, c.in);
    case Collective::send:
      return to.send(c.in, c.peer, c.tag);
    case Collective::recv:
      return to.recv(c.out, c.peer, c.tag);
    case Collective::barrier:
      break;
  }
  return to.barrier();
}

// Whether its memory is a GPU's. Of views that a rank does not use the data is null.
inline bool on_gpu(const Collective& c) {
  return c.out.device.kind == Device::cuda || c.in.device.kind == Device::cuda;
}

// Whether this rank has nothing to give and to get. A view that it does not use has no memory, but a shape.
inline bool is_empty(const Collective& c) {
  const auto none = [](const View& v) { return v.data == nullptr || v.numel() == 0; };
  return none(c.out) && none(c.in);
}

}  // namespace loom
