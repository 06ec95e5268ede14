// Graphs: work of a device that is recorded once and repeated. What a thread puts into its stream between
// Accelerator::capture() and end() is recorded with the values of all arguments, and done at each replay().
//
// What changes from step to step therefore lies in the device's memory, and a launch that is captured has its address:
// the step's number (UpdatePiece::count), the optimizer's options (StepControl), the seed and place of random numbers
// (Philox::base). The host writes options and places before a replay (write_words: as arguments of a launch, so that
// nobody waits) and never learns more. Step numbers are counted on the device (advance): it alone knows which steps a
// loss scale made it skip (StepControl::skip). Eager steps take the same way where they may be skipped.
#pragma once

namespace loom {

// Memory that is allocated while it is recorded is its own.
class Captured {
 public:
  virtual ~Captured() = default;    // waits for replays; gives the memory back
  virtual void* aside() const = 0;  // a stream whose work is done now, once, in memory that is not the graph's
  virtual void end() = 0;
  virtual void replay() = 0;  // into this thread's stream
};

// What an optimizer's step is told in the device's memory; null: nothing.
struct StepControl {
  const double* options = nullptr;  // in place of the step's numbers, in the order of its members
  const float* skip = nullptr;      // not 0: nothing is changed
};

}  // namespace loom
