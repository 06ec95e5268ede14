#include <cstdlib>
#include <exception>

#include <loom/distributed/mpi/group.h>
#include <loom/distributed/mpi/rendezvous.h>

namespace loom {
namespace {

// What the options and the environment ask for.
MpiMode asked_for(MpiMode mode) {
  if (mode == MpiMode::automatic) {
    const char* const text = std::getenv("LOOM_MPI_MODE");
    const std::string_view value = text == nullptr ? "automatic" : text;
    check(value == "threaded" || value == "inline" || value == "automatic",
          "LOOM_MPI_MODE: expected threaded, inline or automatic, got '", value, "'");
    if (value == "threaded") mode = MpiMode::threaded;
    if (value == "inline") mode = MpiMode::inline_mode;
  }
  check(mode != MpiMode::threaded || mpi::many_threads(),
        "mpi: threaded mode needs MPI_THREAD_MULTIPLE, this program has ", mpi::thread_level(),
        "; start MPI with MPI_Init_thread, or use inline mode (LOOM_MPI_MODE=inline)");
  return mode;
}

// Ranks that leave a core of their host free get communication threads.
MpiMode fitting(const mpi::Host& host) {
  return mpi::many_threads() && host.has_free_core() ? MpiMode::threaded : MpiMode::inline_mode;
}

int rank_in(MPI_Comm comm) {
  int rank = 0;
  mpi::check_status(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
  return rank;
}
int size_of(MPI_Comm comm) {
  int size = 0;
  mpi::check_status(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  return size;
}

class MpiCommunicator : public Communicator {
 public:
  MpiCommunicator(MPI_Comm comm, const MpiOptions& options, const mpi::Host& host)
      : Communicator(rank_in(comm), size_of(comm), options.communicator),
        group_(mpi::Group::make(comm, options, host)) {}

  ~MpiCommunicator() override {
    try {
      group_->leave(std::uncaught_exceptions() > exceptions_);
    } catch (const std::exception& e) {
      abort_job(e.what());
    }
  }

  std::string_view name() const override { return "mpi"; }

  std::unique_ptr<Communicator> split(int color, int key) override {
    MPI_Comm part = MPI_COMM_NULL;
    std::unique_ptr<Communicator> out;
    barrier().wait();  // MPI's own calls below are not watched: a rank that never comes is noticed here
    group_->in_order([&] {
      const int chosen = color < 0 ? MPI_UNDEFINED : color;
      mpi::check_status(MPI_Comm_split(group_->comm(), chosen, key, &part), "MPI_Comm_split");
      if (part != MPI_COMM_NULL) out = std::make_unique<MpiCommunicator>(part, group_->options(), group_->host());
    });
    return out;
  }

  void abort(const std::string& reason) noexcept override { abort_job(reason); }

  std::shared_ptr<void> allocate(size_t bytes, Device device) override {
    std::shared_ptr<void> out;
    barrier().wait();  // as in split
    group_->in_order([&] { out = group_->allocate(bytes); });
    return out ? out : Communicator::allocate(bytes, device);
  }

  std::string node() override {
    int first = rank();
    barrier().wait();  // as in split
    group_->in_order([&] {
      MPI_Comm local = MPI_COMM_NULL;
      mpi::check_status(MPI_Comm_split_type(group_->comm(), MPI_COMM_TYPE_SHARED, rank(), MPI_INFO_NULL, &local),
                        "MPI_Comm_split_type");
      mpi::check_status(MPI_Bcast(&first, 1, MPI_INT, 0, local), "MPI_Bcast");
      mpi::free(local);
    });
    return str("the node of rank ", first);
  }

 protected:
  Work submit(Collective c) override { return group_->submit(std::move(c)); }

 private:
  int exceptions_ = std::uncaught_exceptions();
  std::shared_ptr<mpi::Group> group_;
};

std::unique_ptr<Communicator> over(MPI_Comm comm, MpiOptions options) {
  options.mode = asked_for(options.mode);
  mpi::await_all(comm, options.communicator.timeout);
  MPI_Comm own = mpi::duplicate(comm);
  const mpi::Host host = mpi::survey_host(own);
  if (options.mode == MpiMode::automatic) options.mode = fitting(host);
  return std::make_unique<MpiCommunicator>(own, options, host);
}

}  // namespace

bool mpi_takes_threads() { return mpi::running() && mpi::many_threads(); }

std::unique_ptr<Communicator> mpi_communicator(const MpiOptions& options) {
  mpi::start(options.communicator.timeout);
  profile::set_process_rank(rank_in(MPI_COMM_WORLD));
  return over(MPI_COMM_WORLD, options);
}

std::unique_ptr<Communicator> mpi_communicator_from_handle(int fortran_handle, const MpiOptions& options) {
  check(mpi::running(), "mpi: a handle was given, but MPI is not running; call MPI_Init_thread before");
  const MPI_Comm comm = MPI_Comm_f2c(fortran_handle);
  check(comm != MPI_COMM_NULL, "mpi: handle ", fortran_handle, " is MPI_COMM_NULL");
  return over(comm, options);
}

}  // namespace loom
