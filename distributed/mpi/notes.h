// Small notes between the watchdogs of a group: who has left, and who is where when a collective takes too long.
#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <vector>

#include <loom/distributed/mpi/call.h>
#include <loom/distributed/mpi/flight_recorder.h>
#include <loom/distributed/mpi/traffic.h>

namespace loom::mpi {

struct Note {
  enum Kind : int32_t { goodbye, ask, answer };
  Kind kind = goodbye;
  int32_t failed = 0;  // goodbye: by an exception, whose text that rank is about to print
  int32_t running = 0;
  int64_t started = 0, completed = 0;
  Fingerprint current;
};

class Notes {
 public:
  using Clock = std::chrono::steady_clock;
  using TrafficWith = std::function<std::vector<Traffic>(int rank)>;
  struct Received {
    Note note;
    std::vector<Traffic> traffic;  // goodbye: of the messages between that rank and this one
    Clock::time_point when;
  };

  Notes(MPI_Comm comm, const FlightRecorder& recorder);

  void say_goodbye(bool failed, const TrafficWith& traffic_with);
  void ask_all();
  void poll();  // takes what has arrived and answers what was asked
  void finish_sends();
  int size() const { return size_; }
  bool all_left() const;
  std::vector<int> staying() const;  // ranks without a goodbye, this one excepted
  std::optional<Received> goodbye_of(int rank) const;
  std::optional<Received> answer_of(int rank) const;

 private:
  struct Outgoing {
    std::vector<std::byte> bytes;
    MPI_Request request;
  };
  void send(const Note& note, int to, const std::vector<Traffic>& traffic = {});
  Received receive(int from, int bytes);
  Note own(Note::Kind kind) const;

  MPI_Comm comm_;
  const FlightRecorder& recorder_;
  int rank_ = 0, size_ = 1;
  mutable std::mutex mutex_;
  std::list<Outgoing> outgoing_;
  std::vector<std::optional<Received>> goodbyes_, answers_;
};

}  // namespace loom::mpi
