// The ranks of one host exchange through memory that all of them have mapped.
//
// A collective begins with a post: what this rank is in (so that ranks that disagree find out here, always) and where
// its data is. Then it goes one of three ways, the same on all ranks:
//   small     the data travels with the post; every rank reduces all of it. One wait.
//   in place  every rank's data lies in memory from allocate(): each reduces its slice there and writes it to all.
//   staged    any other data: through scratch memory, piece by piece, the next piece on its way in meanwhile.
// Waiting is looking: at the steps of the other ranks, numbers that only grow. It spins for microseconds, then gives
// the processor away, and keeps MPI's own messages moving.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <loom/distributed/collective.h>
#include <loom/distributed/mpi/call.h>
#include <loom/distributed/mpi/shared_segment.h>

namespace loom::mpi {

class Window {
 public:
  // Collective over ranks of one host. Null, on all, where they cannot share memory. crowded: they share cores too.
  static std::unique_ptr<Window> make(MPI_Comm comm, bool crowded);

  // Runs the collective. False, on all ranks alike and with nothing done, where MPI does this one better. Throws, on
  // all ranks the same text, when they are in different collectives.
  bool run(const Collective& c);

  // Memory in which collectives work in place. Collective: the same size on all ranks. Null where there is none.
  std::shared_ptr<void> allocate(size_t bytes);

 private:
  // Where a rank's data is: in the segment of this number from allocate(), or (no segment) with the rank alone.
  struct Place {
    int64_t segment = -1;
    size_t offset = 0;
  };
  // One cache line, and the data of a small collective follows it: a rank that waits for the step gets all at once.
  struct alignas(64) Post {
    std::atomic<uint64_t> step;
    Fingerprint collective;
    Place place;
  };
  struct Lent {
    int64_t number;
    std::shared_ptr<SharedSegment> memory;
  };
  // The part of a contribution that goes to one rank in one piece of a staged reduction.
  struct Slice {
    size_t from = 0;  // in the contribution
    size_t at = 0;    // in scratch
    size_t bytes = 0;
  };
  struct Pieces;

  Window(MPI_Comm comm, std::shared_ptr<SharedSegment> control, int rank, int size, bool crowded);

  void small(const Collective& c);
  bool large(const Collective& c);
  void reduce_in_place(const Collective& c);
  void gather_in_place(const Collective& c);
  void reduce_staged(const Collective& c, const Pieces& pieces);
  void copy_in(const Collective& c, const Pieces& pieces, int64_t piece);
  void copy_out(const Collective& c, const Pieces& pieces, int64_t piece) const;
  void reduce_piece(const Collective& c, const Pieces& pieces, int64_t piece);

  // Announces the collective, with the first of what is staged, and waits until all ranks have.
  void meet(const Collective& c, Place place);
  uint64_t advance();  // to the next step, for all to see
  void wait_for(uint64_t step) const;
  void wait_until(const std::atomic<uint64_t>& theirs, uint64_t step) const;

  std::atomic<uint64_t>& step_of(int rank) const;
  Post& post(int rank) const;                        // of this round
  std::byte* slot(int rank) const;                   // small data
  size_t box(int64_t piece) const;                   // where a piece's box is in a ring
  std::byte* inbox(int rank, int64_t piece) const;   // what a rank contributes to a staged piece
  std::byte* outbox(int rank, int64_t piece) const;  // what a rank has reduced of it
  Place place_of(const View& v) const;
  std::byte* resolve(int rank) const;  // a rank's data of this round, null where it is not in shared memory
  bool all_in_place() const;

  MPI_Comm comm_;  // borrowed
  const std::shared_ptr<SharedSegment> control_;
  const int rank_, size_;
  const bool crowded_;
  uint64_t round_ = 0, step_ = 0, pieces_ = 0;  // pieces_: those of earlier collectives
  int64_t numbers_ = 0;
  std::vector<Lent> lent_;
  std::vector<const void*> inputs_;  // of a reduction, kept for their memory
  std::vector<void*> outputs_;
};

}  // namespace loom::mpi
