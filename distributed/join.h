// Uneven inputs: ranks that have run out of data take part in the collectives of those that have some left.
//
//   join(ddp, [&] {
//     for (const auto& [x, y] : batches) {  // as many as this rank has
//       sgd.zero_grad();
//       loss(ddp.forward([&] { return net(x); }), y).backward();
//       sgd.step();
//     }
//   });
//
// Ranks announce to each other which collectives of the model come next; one that has run out goes through them with
// zeros. When all have run out, they take over the model of the last that had data. A loop in which no rank ran out
// early is what it is without join.
//
// Within the loop, ranks issue no collectives but the models', and a backward comes to one synchronised model.
// Optimizers and schedulers of ranks that ran out have missed steps: bring them up to date (Fabric::join does), and do
// not step on after the loop before that.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <loom/distributed/communicator.h>

namespace loom {

class Join;

struct JoinOptions {
  // Gradients are divided by the number of ranks; false: by the number of those that still have data.
  bool divide_by_initial_world_size = true;
  bool enable = true;  // false: the loop runs as it is
  // An Error on all ranks as soon as one has run out while others have not.
  bool throw_on_early_termination = false;
};

// What takes part: it announces its collectives to the join that it is in.
class Joinable {
 public:
  virtual ~Joinable() = default;
  virtual Communicator& join_communicator() const = 0;
  virtual bool joined() const = 0;
  virtual void set_join(Join* join) = 0;  // null: it is over
  // On a rank that has run out: the part of a rank without data in what the others have announced.
  virtual void shadow(int event) = 0;
  // Takes over what this rank holds. Collective.
  virtual void adopt(int rank) = 0;
};

// The result: whether some ranks ran out before others, and the first of those that had data to the end.
struct Joined {
  bool uneven = false;
  int last = 0;
};

// Runs the loop on every rank. An exception of it passes through, and leaves the other ranks to themselves.
Joined join(const std::vector<Joinable*>& models, const std::function<void()>& loop, const JoinOptions& options = {});
Joined join(Joinable& model, const std::function<void()>& loop, const JoinOptions& options = {});

// A join as its models see it.
class Join {
 public:
  Join(std::vector<Joinable*> models, const JoinOptions& options);
  ~Join();
  Join(const Join&) = delete;
  Join& operator=(const Join&) = delete;

  // Before collectives of `model`: which ones, as a number from 1 to 255 of the model's own. All ranks that have data
  // announce the same.
  void announce(const Joinable& model, int event);
  bool announces_all() const { return options_.throw_on_early_termination; }  // also steps without collectives

  // As of the last announcement, for which these wait.
  int first_active();  // the first rank that has data
  bool all_active();
  double scale();  // by what a mean over all ranks is multiplied
  bool ran_out() const { return ran_out_; }
  bool missed_some() const { return missed_some_; }  // ran out while others went on

  Joined run_out();  // this rank has no more data. Collective: returns when no rank has

 private:
  struct Exchanged {
    int32_t own = 0;
    std::vector<int32_t> all;
  };
  void exchange(int32_t event);
  void settle();
  int active() const;

  const std::vector<Joinable*> models_;
  const JoinOptions options_;
  Communicator& ranks_;
  const std::shared_ptr<Exchanged> events_;  // 0: has run out
  Work work_;
  bool settled_ = true;
  bool ran_out_ = false, missed_some_ = false;
  Joined joined_;
};

}  // namespace loom
