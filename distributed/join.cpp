#include <loom/distributed/join.h>

#include <algorithm>

#include <loom/distributed/work_keeper.h>
#include <loom/tensor/context.h>

namespace loom {

namespace {

constexpr int32_t events_each = 256;

Communicator& common_communicator(const std::vector<Joinable*>& models) {
  check(!models.empty(), "join: no model given");
  Communicator& first = models.front()->join_communicator();
  for (const Joinable* m : models)
    check(&m->join_communicator() == &first, "join: the models are on different communicators");
  return first;
}

}  // namespace

Join::Join(std::vector<Joinable*> models, const JoinOptions& options)
    : models_(std::move(models)),
      options_(options),
      ranks_(common_communicator(models_)),
      events_(std::make_shared<Exchanged>()) {
  events_->all.resize(static_cast<size_t>(ranks_.size()));
  for (size_t i = 0; i < models_.size(); ++i)
    check(!models_[i]->joined() && std::find(models_.begin(), models_.begin() + static_cast<ptrdiff_t>(i),
                                             models_[i]) == models_.begin() + static_cast<ptrdiff_t>(i),
          "join: a model is in a join already");
  for (Joinable* m : models_) m->set_join(this);
}

Join::~Join() {
  for (Joinable* m : models_) m->set_join(nullptr);
  keep_until_done(events_, work_);
}

void Join::exchange(int32_t event) {
  settle();
  events_->own = event;
  work_ = ranks_.all_gather(view_over(events_->all.data(), DType::i32, {ranks_.size()}),
                            view_over(&events_->own, DType::i32, {1}));
  settled_ = false;
}

// Ranks that have data are in the same collectives, or these would mix.
void Join::settle() {
  if (settled_) return;
  work_.wait();
  settled_ = true;
  int32_t common = 0;
  for (size_t r = 0; r < events_->all.size(); ++r) {
    const int32_t event = events_->all[r];
    if (event == 0) continue;
    if (common == 0) {
      common = event;
      joined_.last = static_cast<int>(r);
    }
    check(event == common, "join: rank ", joined_.last, " and rank ", r,
          " announce different collectives; ranks that have data make the same forwards and backwards");
  }
  if (common != 0 && !all_active()) joined_.uneven = true;
}

void Join::announce(const Joinable& model, int event) {
  check(context().capture == nullptr,
        "join: ranks tell each other on the host what comes next, which a captured step does not do again");
  const auto number = std::ranges::find(models_, &model) - models_.begin();
  exchange(static_cast<int32_t>(number) * events_each + event);
  if (options_.throw_on_early_termination)
    check(all_active(), "Detected at least one rank that exhausted inputs. Throwing across all ranks.");
}

int Join::active() const { return ranks_.size() - static_cast<int>(std::ranges::count(events_->all, 0)); }

bool Join::all_active() {
  settle();
  return active() == ranks_.size();
}

int Join::first_active() {
  settle();
  return joined_.last;
}

double Join::scale() {
  settle();
  return options_.divide_by_initial_world_size ? 1 : static_cast<double>(ranks_.size()) / active();
}

Joined Join::run_out() {
  for (ran_out_ = true;;) {
    exchange(0);
    settle();
    if (active() == 0) break;
    check(!options_.throw_on_early_termination, "Rank ", ranks_.rank(), " exhausted all inputs.");
    missed_some_ = true;
    const int32_t event = events_->all[static_cast<size_t>(joined_.last)];
    models_[static_cast<size_t>(event / events_each)]->shadow(event % events_each);
  }
  if (joined_.uneven)
    for (Joinable* m : models_) m->adopt(joined_.last);
  return joined_;
}

Joined join(const std::vector<Joinable*>& models, const std::function<void()>& loop, const JoinOptions& options) {
  if (!options.enable) {
    loop();
    return {};
  }
  Join joined(models, options);
  loop();
  return joined.run_out();
}

Joined join(Joinable& model, const std::function<void()>& loop, const JoinOptions& options) {
  return join(std::vector<Joinable*>{&model}, loop, options);
}

}  // namespace loom
