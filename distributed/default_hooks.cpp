#include <loom/distributed/default_hooks.h>

#include <string>
#include <utility>

#include <loom/tensor/raw.h>

namespace loom {

namespace {

class AllreduceHook final : public CommHook {
 public:
  std::string_view name() const override { return "allreduce"; }
  Exchange start(Communicator& ranks, const GradBucket& bucket) override {
    return {ranks.all_reduce(bucket.buffer, ReduceOp::mean), {}};
  }
};

// Another hook's view of the gradients, in 16 bits.
class CompressHook final : public CommHook {
 public:
  CompressHook(std::string name, DType dtype, std::shared_ptr<CommHook> inner)
      : name_(std::move(name)), dtype_(dtype), inner_(std::move(inner)) {
    check(inner_ != nullptr, name_, ": no hook given");
  }
  std::string_view name() const override { return name_; }
  bool keeps_state() const override { return inner_->keeps_state(); }
  void set_gradient_scale(const Tensor& scale) override { inner_->set_gradient_scale(scale); }
  double gradient_scale() const override { return inner_->gradient_scale(); }

  int64_t scratch_bytes(const GradBucket& bucket) const override {
    if (!compresses(bucket)) return inner_->scratch_bytes(bucket);
    return HookScratch::bytes(bucket.buffer.numel(), dtype_) + inner_->scratch_bytes(like(bucket));
  }
  void prepare(Communicator& ranks, const std::vector<GradBucket>& buckets) override {
    std::vector<GradBucket> small;
    small.reserve(buckets.size());
    for (const GradBucket& b : buckets) small.push_back(compresses(b) ? like(b) : b);
    inner_->prepare(ranks, small);
  }
  Exchange start(Communicator& ranks, const GradBucket& bucket) override {
    if (!compresses(bucket)) return inner_->start(ranks, bucket);
    HookScratch scratch = bucket.scratch;
    const Tensor buffer = scratch.take({bucket.buffer.numel()}, dtype_);
    raw::copy_into(buffer, bucket.buffer);
    GradBucket small = over(buffer, bucket);
    small.scratch = std::move(scratch);
    Exchange exchange = inner_->start(ranks, small);
    return followed_by(std::move(exchange), [to = bucket.buffer, buffer] { raw::copy_into(to, buffer); });
  }

 private:
  bool compresses(const GradBucket& bucket) const { return item_size(dtype_) < item_size(bucket.buffer.dtype()); }
  // The same places in another buffer.
  static GradBucket over(const Tensor& buffer, const GradBucket& bucket) {
    GradBucket out{bucket.index, bucket.is_last, buffer, {}, bucket.parameters, {}};
    for (const Tensor& g : bucket.gradients)
      out.gradients.push_back(
          raw::as_strided(buffer, g.shape(), g.strides(),
                          buffer.storage_offset() + g.storage_offset() - bucket.buffer.storage_offset()));
    return out;
  }
  // Shapes and dtypes of what the inner hook will see.
  GradBucket like(const GradBucket& bucket) const {
    return over(empty({bucket.buffer.numel()}, {dtype_, bucket.buffer.device()}), bucket);
  }

  std::string name_;
  DType dtype_;
  std::shared_ptr<CommHook> inner_;
};

std::shared_ptr<CommHook> wrapped(const char* prefix, DType dtype, std::shared_ptr<CommHook> hook) {
  const std::string name = prefix + std::string(hook ? hook->name() : "");
  return std::make_shared<CompressHook>(name, dtype, std::move(hook));
}

}  // namespace

std::shared_ptr<CommHook> allreduce_hook() { return std::make_shared<AllreduceHook>(); }
std::shared_ptr<CommHook> fp16_compress_hook() {
  return std::make_shared<CompressHook>("fp16_compress", DType::f16, allreduce_hook());
}
std::shared_ptr<CommHook> bf16_compress_hook() {
  return std::make_shared<CompressHook>("bf16_compress", DType::bf16, allreduce_hook());
}
std::shared_ptr<CommHook> fp16_compress_wrapper(std::shared_ptr<CommHook> hook) {
  return wrapped("fp16_compress_", DType::f16, std::move(hook));
}
std::shared_ptr<CommHook> bf16_compress_wrapper(std::shared_ptr<CommHook> hook) {
  return wrapped("bf16_compress_", DType::bf16, std::move(hook));
}

}  // namespace loom
