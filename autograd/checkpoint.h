// Activation checkpointing (Chen et al. 2016): memory for time. What the ops inside keep for backward is dropped and
// computed again, once, when backward first needs it:
//
//   Tensor y = checkpoint([&](const Tensor& x) { return block(x); }, x);
//
// The graph itself is recorded as always, only its saved tensors are missing; therefore grad(), hooks, second order,
// several outputs, parameters that f captures and regions inside regions work as without. The recomputation sees the
// random state, the context and the training flags of the first run, leaves the present ones alone, and stops as soon
// as everything that is still needed has been computed. It must save the same tensors: Error names the difference.
#pragma once

#include <concepts>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#include <loom/autograd/graph.h>
#include <loom/autograd/recompute.h>

namespace loom {

namespace autograd {

// A function with its arguments, to be run again.
class Region : public std::enable_shared_from_this<Region> {
 public:
  Region() : context_(context()) {}
  virtual ~Region() = default;
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

 protected:
  virtual void run() = 0;

 private:
  friend struct RegionScope;
  friend std::shared_ptr<Recomputed> note_saved(const Tensor& x);
  friend const Tensor& recomputed_value(Recomputed& saved);
  friend bool replayed_flag(bool flag);
  struct Entry {
    std::weak_ptr<Recomputed> saved;  // gone when nothing needs it any more
    DType dtype;
    Dims shape;
  };
  void recompute();

  Context context_;  // at the first run
  std::vector<Entry> entries_;
  std::vector<bool> flags_;
};

struct RegionScope {
  explicit RegionScope(Region& of, bool again = false) : region(of), replay(again), outer(region_scope) {
    region_scope = this;
  }
  ~RegionScope() { region_scope = outer; }
  RegionScope(const RegionScope&) = delete;
  RegionScope& operator=(const RegionScope&) = delete;

  void compare(const Tensor& x);  // replay: the next tensor that is saved

  Region& region;
  const bool replay;
  RegionScope* const outer;
  size_t next = 0, next_flag = 0;  // replay: how far it is
  size_t last_needed = 0;
  bool done = false;
};

namespace detail {

Tensor argument_again(const Tensor& x, bool requires_grad);

// An argument until it is wanted again. A tensor counts as saved in the enclosing region.
template <class T>
struct Kept {
  explicit Kept(const T& x) : value(x) {}
  const T& operator()() const { return value; }
  T value;
};
template <class T>
  requires std::derived_from<T, Tensor>
struct Kept<T> {
  explicit Kept(const Tensor& x) : saved(resolve(x)), requires_grad(autograd::requires_grad(resolve(x))) {}
  Tensor operator()() const { return argument_again(saved(), requires_grad); }
  Saved saved;
  bool requires_grad;
};

// Modules are referred to, for a copy would have its own parameters; other functions are copied.
struct AnyMember {
  void operator()(auto&&...) const {}
};
template <class F>
concept HasMembers = requires(F& f) { f.members(AnyMember()); };
template <class F>
using Callee = std::conditional_t<std::is_lvalue_reference_v<F> && HasMembers<std::remove_reference_t<F>>, F,
                                  std::remove_cvref_t<F>>;

template <class F, class... Args>
class RegionOf final : public Region {
 public:
  template <class G>
  explicit RegionOf(G&& g, const Args&... args) : f(std::forward<G>(g)), args_(args...) {}
  void run() override {
    std::apply([this](const auto&... arg) { static_cast<void>(std::invoke(f, arg()...)); }, args_);
  }
  F f;

 private:
  std::tuple<Kept<Args>...> args_;
};

}  // namespace detail
}  // namespace autograd

// f(args...), whose activations are computed again at backward. Tensors that f uses may be passed or captured.
template <class F, class... Args>
auto checkpoint(F&& f, const Args&... args) -> std::invoke_result_t<F&, const Args&...> {
  if (!context().grad_mode) return std::invoke(f, args...);
  using Region = autograd::detail::RegionOf<autograd::detail::Callee<F>, Args...>;
  const auto region = std::make_shared<Region>(std::forward<F>(f), args...);
  const autograd::RegionScope scope(*region);
  return std::invoke(region->f, args...);
}

}  // namespace loom
