// Optimizers: torch.optim's algorithms, options, defaults and state.
//
//   optim::AdamW adamw(nn::parameters(net), {.lr = 1e-3});
//   adamw.zero_grad();  loss.backward();  adamw.step();
//
// Parameters are held through their handles, so net.to() and loading stay visible; state is made when a parameter is
// first stepped, so an optimizer may be built before placement or sharding.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include <loom/accelerators/accelerator.h>
#include <loom/autograd/grad_mode.h>
#include <loom/autograd/parameter.h>

namespace loom::optim {

// Everything that a checkpoint keeps of an optimizer or scheduler.
using State = std::map<std::string, Tensor>;

// Parameters with options of their own. Options are numbers by PyTorch's names (betas: beta1, beta2; flags: 0 or 1);
// what a group leaves out is the optimizer's default.
struct Group {
  std::vector<NamedTensor> parameters;
  std::map<std::string, double> options;

  double option(const std::string& name) const;
  double lr() const { return option("lr"); }
  void set_lr(double lr) { options["lr"] = lr; }
};

// What schedulers add to a group's options, and so to an optimizer's state: a group with an option of one level has all
// of that level and of those below. 1: every scheduler's; 2: OneCycleLR's; 3: where it cycles momentum.
struct OptionOfSchedulers {
  const char* name;
  int level;
};
inline constexpr OptionOfSchedulers options_of_schedulers[] = {
    {"initial_lr", 1}, {"max_lr", 2}, {"min_lr", 2}, {"max_momentum", 3}, {"base_momentum", 3}};

// What a step reads and writes of a parameter: all of it, or under a sharding strategy this rank's piece.
struct Piece {
  Tensor value, grad;  // no grad: the parameter is skipped
};

// How parameters of 16 bits are stepped. An update of less than half a unit in the last place is lost when the sum is
// rounded to nearest, and training stalls; so it is not, unless asked for.
enum class HalfUpdate : uint8_t {
  master,      // an f32 copy is stepped, and the parameter is its rounding; the copy is state ("master.fc1.weight")
  stochastic,  // rounded up or down at random, right in the mean: no copy (Gupta et al. 2015, arXiv:1502.02551)
  nearest,     // as torch.optim does
};

// Steps of an optimizer in this process: made, and skipped since gradients were not finite.
struct StepCounts {
  int64_t taken = 0, skipped = 0;
};

// Whether a step was made. Where the device decides, the answer waits for it.
class StepOutcome {
 public:
  StepOutcome(bool made) : made_(made) {}                           // NOLINT: a decision of the host
  explicit StepOutcome(Tensor found) : found_(std::move(found)) {}  // made, if it is 0
  // What a device decides by; undefined where the host has decided.
  const Tensor& found() const { return found_; }
  operator bool() const { return found_.defined() ? found_.item<float>() == 0 : made_; }  // NOLINT

 private:
  bool made_ = false;
  Tensor found_;
};

// What an optimizer remembers of one parameter; tensors have the piece's shape, in f32 (f64 for f64).
class ParameterState {
 public:
  int64_t step = 0;
  Tensor count;  // i64, 0-dimensional: the number on the device, which counts in place of `step`; or undefined
  int64_t steps() const { return count.defined() ? count.item<int64_t>() : step; }
  void set_steps(int64_t number);
  // For an update's piece, whose state this is: the number of the step that is being made.
  int64_t next_step() { return count.defined() ? 0 : ++step; }
  std::map<std::string, Tensor> tensors;  // "exp_avg", ...
  std::map<std::string, Tensor> unused;   // memory of some that were loaded away, for captured steps that know it
  bool master_kept = false;               // whatever the count tells: there were steps that it has not seen

  static DType dtype_of_state(DType of_parameter) { return of_parameter == f64 ? f64 : f32; }
  Tensor& memory(const std::string& name);  // of the tensor of that name: undefined where there has been none
  // The tensor of that name, at first filled with `initial`.
  const Tensor& tensor(const std::string& name, const Tensor& value, double initial = 0);
  // The f32 copy of a 16-bit value, which is its rounding; elements that somebody else has written are not, and go to
  // the copy before the next step.
  const Tensor& master(const Tensor& value);
  bool is_rounding_of_master(const Tensor& value) const;  // nobody has written it since
  void note_master_written(const Tensor& value);
  // A value of 32 or 64 bits that was loaded with the copy of a 16-bit one becomes what the copy holds, but for
  // elements that are not its rounding; the copy goes.
  void restore_from_master(const Tensor& value);

 private:
  Ref<Storage> rounded_in_;  // where the master's rounding was last written, and as which version
  uint64_t rounded_version_ = 0;
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // Schedulers and Fabric refer to it, and a copy would share its state.
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  void step();
  // Unless `found` (one f32) is not 0: then nothing changes but the count of skipped steps. What is found on a device
  // is not waited for: its kernels look at it, and step numbers are counted there from then on; masters that were
  // loaded for wider parameters are taken over before (state_dict). A captured step
  // (tensor/device_graph.h) does likewise, and takes the options that the groups have when it is repeated.
  StepOutcome step_unless(const Tensor& found);
  void skip_step();
  StepCounts step_counts() const;  // waits for a device that decided on steps
  int64_t steps_asked() const { return counts_.taken + counts_.skipped + device_.asked; }  // made or skipped
  // Runs closure, which computes the gradients and returns the loss, and steps.
  template <class Closure>
  auto step(Closure&& closure) {
    const EnableGrad enable;
    auto loss = closure();
    step();
    return loss;
  }
  void zero_grad(bool set_to_none = true);

  std::vector<Tensor> gradients() const;  // of all parameters that have one

  std::vector<Group>& param_groups() { return groups_; }
  const std::vector<Group>& param_groups() const { return groups_; }
  void add_param_group(Group group);

  // "exp_avg.fc1.weight" and "step.fc1.weight" per parameter that has been stepped, "groups.0.lr" per option. Masters
  // that are loaded for parameters of 32 or 64 bits are what these are set to at the first step, in place of their
  // roundings. Tensors are the optimizer's own, not copies, but for masters of parameters that somebody has written.
  State state_dict() const;
  // Replaces state and options; checks all names, shapes, kinds of dtypes and numbers first and changes nothing on
  // error. Options that a group has here are needed; it takes a scheduler's too, which may be made later.
  // Lets go of the values one by one as they are copied, so that load_state_dict(std::move(values)) never holds both.
  void load_state_dict(State values);
  // Throws what load_state_dict would throw; reads shapes and dtypes, and values of tensors with one element.
  void check_state_dict(const State& values) const;

  // For parameters of f16 and bf16. Stochastic: the numbers depend on the seed, the step and the parameter's place
  // alone.
  void set_half_update(HalfUpdate how, uint64_t seed = 0);
  HalfUpdate half_update() const { return half_update_; }
  // What the next step multiplies gradients of 16-bit parameters with (f32, one element; then it is 1 again). They keep
  // the loss scale until then: without it they would vanish. Undefined: 1.
  void set_half_factor(const Tensor& factor) { half_factor_ = factor; }
  const Tensor& half_factor() const { return half_factor_; }

  // Sharding: where pieces come from (default: whole parameters and their .grad), and the state to be sharded.
  using Access = std::function<Piece(const NamedTensor&)>;
  void set_access(Access access) { access_ = std::move(access); }
  ParameterState& state(const Tensor& parameter) { return states_[parameter.body_pointer().get()]; }
  // The names of a parameter's state tensors under a group's options; an option that is not 0 only adds to them.
  virtual std::vector<std::string> slots(const Group& group) const = 0;
  // What such a tensor holds before the first step.
  virtual double initial(const Group& group, const std::string& slot) const;
  virtual bool counts_steps() const { return true; }
  const char* name() const { return name_; }

 protected:
  struct Item {
    Piece piece;  // dense
    ParameterState* state;
    Tensor master, factor;  // or undefined
    bool value_written;     // UpdatePiece's
    std::optional<Philox> rounding;
  };
  Optimizer(const char* name, std::map<std::string, double> defaults) : name_(name), defaults_(std::move(defaults)) {}
  void add_param_groups(std::vector<Group> groups);

  // Throws unless a group's options are in range.
  virtual void validate(const Group& group) const = 0;
  // One step of a group's parameters. Gradients are off; versions are bumped by the caller.
  virtual void update(const Group& group, std::span<const Item> items) = 0;
  // The number of a parameter's last step where it is not counted: what its state tells.
  virtual int64_t steps_of(const ParameterState& state) const { return state.step; }
  // What the step's kernels are told on the device. options: names, in the order of the step's numbers.
  StepControl control(const Group& group, std::span<const char* const> options) const;
  // Throws "SGD: invalid learning rate: -1" unless ok.
  void require(bool ok, const char* what, double value) const;

 private:
  Piece piece(const NamedTensor& parameter) const;
  Item item(const NamedTensor& parameter, const Piece& piece, uint64_t place);
  void make_step();
  std::vector<std::string> all_slots(const Group& group) const;  // whatever the options
  bool begins_anew(std::span<const std::string> slots, const ParameterState& state) const;
  bool rests(std::span<const std::string> slots, const ParameterState& state) const;
  int64_t* count_of(std::span<const std::string> slots, const Item& item);
  void count_on_device(const Group& group, std::span<const Item> items);
  void count_on_host(ParameterState& state) const;
  Philox rounding(uint64_t place, Device device);
  void advance_rounding();
  int64_t rounding_steps() const;
  void set_rounding_steps(int64_t steps);
  void set_rounding_seed(uint64_t seed);
  ParameterState uncounted(const Tensor& parameter) const;
  Tensor master_of(const NamedTensor& parameter, const ParameterState& state) const;
  void load_slots(ParameterState& state, const Group& group, const NamedTensor& parameter, State& values) const;
  const float* control_skip() const;
  void note_made();
  static void take_options(Group& group, const State& values, const std::string& prefix);
  std::string mismatches(const State& values) const;

  const char* name_;
  std::map<std::string, double> defaults_;
  std::vector<Group> groups_;
  std::unordered_map<const Tensor::Body*, ParameterState> states_;
  Access access_;
  HalfUpdate half_update_ = HalfUpdate::master;
  int64_t half_updates_ = 0;  // how often it was changed
  uint64_t rounding_seed_ = 0;
  int64_t rounding_step_ = 0;  // steps that rounded stochastically
  Tensor half_factor_;
  StepCounts counts_;
  // Where the device decides or a graph repeats steps; undefined before.
  struct OnDevice {
    Tensor skip;        // in a step: what is found in its gradients
    Tensor taken;       // i64: steps made
    Tensor rounding;    // i64 [3]: Philox::base of stochastic rounding
    int64_t asked = 0;  // steps that were made or skipped
  };
  OnDevice device_;
  std::shared_ptr<const bool> alive_ = std::make_shared<bool>(true);  // for graphs that repeat its steps
};

}  // namespace loom::optim
