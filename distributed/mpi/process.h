// MPI as this process has it: started once, watched, ended in order.
#pragma once

#include <chrono>
#include <memory>
#include <string>

namespace loom::mpi {

// Starts MPI unless the program did; what Loom starts it also ends, at exit. Throws when MPI has been ended already.
// MPI starts on all ranks together: when some have not come in time the job ends.
void start(std::chrono::milliseconds timeout);
bool running();       // started and not ended
bool many_threads();  // any thread may call MPI at any time (MPI_THREAD_MULTIPLE)
std::string thread_level();

// A group of ranks that is in use.
class Watched {
 public:
  virtual ~Watched() = default;
  virtual void watch() = 0;           // on the watchdog's thread, several times a second
  virtual void say_goodbye() = 0;     // this rank will issue nothing more
  virtual void await_goodbyes() = 0;  // of all others; then frees what the group holds
};
void add(const std::shared_ptr<Watched>& group, std::chrono::milliseconds timeout);
void remove(const Watched* group);  // returns when it is not being watched
// Keeps a group whose ranks do not all end together until the process ends, which then ends the job.
void abandon(std::shared_ptr<Watched> group);

}  // namespace loom::mpi
