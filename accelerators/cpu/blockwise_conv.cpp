// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include <loom/accelerators/cpu/correlation.h>
#include <loom/accelerators/threads.h>

namespace loom::cpu {

namespace {

using Pair = std::array<int64_t, 2>;

// Outputs that read the same taps: all of them, but of a strided convolution's input gradient those whose position has
// the same remainder.
struct Phase {
  Pair out;                     // rows and columns
  std::vector<int64_t> kernel;  // elements of the kernel that are taps of one channel
  std::vector<Pair> at;         // where these lie in the frame for the first output
};

// A convolution as images of frames, blocks of output channels and phases of outputs.
struct Plan {
  int64_t images, groups, in_channels, out_channels;  // channels of a group
  Pair in, out, every, step;                          // every: from an output of a phase to the next
  Pair padding, extent;                               // of frames
  std::vector<Phase> phases;

  int64_t blocks() const { return (out_channels + conv_block - 1) / conv_block; }
  int64_t out_plane() const { return out[0] * out[1]; }
  int64_t channels_of(int64_t block) const { return std::min<int64_t>(conv_block, out_channels - block * conv_block); }
  bool whole() const { return every == Pair{1, 1}; }
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

Plan forward_plan(const ConvShape& s) {
  const Correlation c = forward_of(s);
  Plan plan{c.images, c.groups, c.in_channels, c.out_channels, c.in, c.out, {1, 1}, c.step, c.padding, c.extent(), {}};
  Phase all{c.out, {}, {}};
  for (int64_t h = 0; h < c.kernel[0]; ++h)
    for (int64_t w = 0; w < c.kernel[1]; ++w) {
      all.kernel.push_back(h * c.kernel[1] + w);
      all.at.push_back({h * c.dilation[0], w * c.dilation[1]});
    }
  plan.phases.push_back(std::move(all));
  return plan;
}

// Along one dimension: which element of dy tap k gives to dx at phase `first`, relative to the phase's own count.
struct Reach {
  int64_t least = 0, most = 0;
  static bool meets(const ConvShape& s, size_t d, int64_t first, int64_t k) {
    return (first + s.g.padding[d] - k * s.g.dilation[d]) % s.g.stride[d] == 0;
  }
  static int64_t shift(const ConvShape& s, size_t d, int64_t first, int64_t k) {
    return (first + s.g.padding[d] - k * s.g.dilation[d]) / s.g.stride[d];
  }
  Reach(const ConvShape& s, size_t d, int64_t kernel) {
    for (int64_t first = 0; first < s.g.stride[d]; ++first)
      for (int64_t k = 0; k < kernel; ++k)
        if (meets(s, d, first, k)) {
          least = std::min(least, shift(s, d, first, k));
          most = std::max(most, shift(s, d, first, k));
        }
  }
};

Plan grad_input_plan(const ConvShape& s) {
  const Pair kernel{s.kernel_h, s.kernel_w}, size{s.height, s.width};
  const Reach down(s, 0, kernel[0]), right(s, 1, kernel[1]);
  Plan plan{s.images,
            s.groups,
            s.group_outputs,
            s.group_channels,
            {s.out_height, s.out_width},
            size,
            s.g.stride,
            {1, 1},
            {-down.least, -right.least},
            {ceil_div(size[0], s.g.stride[0]) + down.most - down.least,
             ceil_div(size[1], s.g.stride[1]) + right.most - right.least},
            {}};
  for (int64_t a = 0; a < std::min(s.g.stride[0], size[0]); ++a)
    for (int64_t b = 0; b < std::min(s.g.stride[1], size[1]); ++b) {
      Phase phase{{ceil_div(size[0] - a, s.g.stride[0]), ceil_div(size[1] - b, s.g.stride[1])}, {}, {}};
      for (int64_t h = 0; h < kernel[0]; ++h)
        for (int64_t w = 0; w < kernel[1]; ++w) {
          if (!Reach::meets(s, 0, a, h) || !Reach::meets(s, 1, b, w)) continue;
          phase.kernel.push_back(h * kernel[1] + w);
          phase.at.push_back({Reach::shift(s, 0, a, h) - down.least, Reach::shift(s, 1, b, w) - right.least});
        }
      plan.phases.push_back(std::move(phase));
    }
  return plan;
}

// How many images a block's weights meet in one go: their frames stay in the third cache, if not in the second; fewer
// where threads would have nothing to do.
int64_t images_together(const Plan& plan) {
  constexpr int64_t cached = 512 << 10;
  const int64_t frame = std::max<int64_t>(1, plan.in_channels * plan.extent[0] * plan.extent[1]);
  const int64_t sets = ceil_div(2 * num_threads(), plan.groups * plan.blocks());
  const int64_t fair = num_threads() == 1 ? plan.images : ceil_div(plan.images, sets);
  return plan.groups > 1 ? 1 : std::max<int64_t>(1, std::min({plan.images, cached / frame, fair}));
}

// Packs the weights of block `block` of group `group` as [phase][tap][width]; beyond the last channel they are zero.
using Pack = void (*)(const ConvShape& s, const Plan& plan, const float* w, int64_t group, int64_t block, float* to,
                      int64_t width);

void pack_forward(const ConvShape& s, const Plan& plan, const float* w, int64_t group, int64_t block, float* to,
                  int64_t width) {
  const int64_t first = group * plan.out_channels + block * conv_block;
  turn(to, width, w + first * s.taps(), s.taps(), plan.channels_of(block), s.taps());
}

void pack_grad_input(const ConvShape& s, const Plan& plan, const float* w, int64_t group, int64_t block, float* to,
                     int64_t width) {
  const int64_t plane = s.kernel_h * s.kernel_w, channels = plan.channels_of(block);
  const bool whole = plan.whole();
  const Scratch<float> all(whole ? 0 : plane * width);
  for (int64_t o = 0; o < plan.in_channels; ++o) {
    const float* const from = w + (group * plan.in_channels + o) * s.taps() + block * conv_block * plane;
    // The line behind the last one too: a vector's load waits for it, though under a mask.
    for (int64_t i = 0; i <= channels * plane; i += 16) __builtin_prefetch(from + 12 * s.taps() + i);
    float* const turned = whole ? to + o * plane * width : all.data();
    turn(turned, width, from, plane, channels, plane);
    if (whole) continue;
    float* phase_weights = to;
    for (const Phase& phase : plan.phases) {
      const auto taps = static_cast<int64_t>(phase.kernel.size());
      for (int64_t k = 0; k < taps; ++k)
        std::copy_n(turned + phase.kernel[static_cast<size_t>(k)] * width, width,
                    phase_weights + (o * taps + k) * width);
      phase_weights += plan.in_channels * taps * width;
    }
  }
}

// Turns the outputs of an image's block, [pixel][width] of each phase, into planes of channels.
void turn_phases(const Plan& plan, float* y, const float* const* parts, int64_t channels, int64_t width) {
  if (plan.whole()) return turn(y, plan.out_plane(), parts[0], width, plan.out_plane(), channels);
  constexpr int64_t together = 64;
  alignas(64) float pixels[together * conv_block];
  const int64_t across = std::min(plan.every[1], plan.out[1]);
  for (int64_t row = 0; row < plan.out[0]; ++row) {
    const float* const* const part = parts + row % plan.every[0] * across;
    const int64_t line = row / plan.every[0];
    for (int64_t first = 0; first < plan.out[1]; first += together) {
      const int64_t count = std::min(together, plan.out[1] - first);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t phase = (first + i) % plan.every[1], at = (first + i) / plan.every[1];
        const int64_t columns = ceil_div(plan.out[1] - phase, plan.every[1]);
        const float* const from = part[phase] + (line * columns + at) * width;
        for (int64_t c = 0; c < width; c += lanes<float>) store(pixels + i * width + c, load(from + c));
      }
      turn(y + row * plan.out[1] + first, plan.out_plane(), pixels, width, count, channels);
    }
  }
}

// One thread's frames and buffers.
class Worker {
 public:
  Worker(const ConvShape& shape, const Plan& p, Pack pack, int64_t together) : s_(shape), plan_(p), pack_(pack) {
    weights_ = Scratch<float>(p.in_channels * shape.kernel_h * shape.kernel_w * conv_block);
    for (int64_t i = 0; i < together; ++i) frames_.emplace_back(p.in_channels, p.in, p.padding, p.extent);
    placed_.resize(frames_.size());
    for (const Phase& phase : p.phases) offsets_.push_back(offsets(phase));
    sums_ = Scratch<float>(together * conv_block * p.out_plane());
    parts_.resize(p.phases.size());
  }

  // x: of the first image and the group.
  void place(const float* x, int64_t images) {
    for (int64_t i = 0; i < images; ++i)
      placed_[static_cast<size_t>(i)] =
          frames_[static_cast<size_t>(i)].place(x + i * plan_.groups * plan_.in_channels * plan_.in[0] * plan_.in[1]);
  }

  // y: of the first image and the block.
  void run(float* y, const float* w, const float* bias, int64_t images, int64_t group, int64_t block) {
    const int64_t channels = plan_.channels_of(block), width = channels > lanes<float> ? conv_block : lanes<float>;
    const int64_t image_step = plan_.groups * plan_.out_channels * plan_.out_plane();
    alignas(64) float b[conv_block] = {};
    if (bias != nullptr) std::copy_n(bias + group * plan_.out_channels + block * conv_block, channels, b);
    if (channels < width) std::fill_n(weights_.data(), plan_.in_channels * s_.kernel_h * s_.kernel_w * width, 0.0F);
    pack_(s_, plan_, w, group, block, weights_.data(), width);
    // Of an image: the phases' sums, one after the other.
    const float* weights = weights_.data();
    const int64_t step = plan_.out_plane() * width;
    for (int64_t at = 0, i = 0; const Phase& phase : plan_.phases) {
      const int64_t taps = static_cast<int64_t>(phase.kernel.size()) * plan_.in_channels;
      const int64_t* const offset = offsets_[static_cast<size_t>(i)].data();
      const ConvLines<float> lines{placed_.data(), phase.out[0],
                                   phase.out[1],   plan_.step[0] * frames_[0].pitch(),
                                   plan_.step[1],  offset,
                                   taps,           sums_.data() + at,
                                   step,           0,
                                   channels};
      lines.run(weights, b, 0, images * phase.out[0]);
      parts_[static_cast<size_t>(i++)] = sums_.data() + at;
      weights += taps * width;
      at += phase.out[0] * phase.out[1] * width;
    }
    for (int64_t image = 0; image < images; ++image) {
      turn_phases(plan_, y + image * image_step, parts_.data(), channels, width);
      for (const float*& part : parts_) part += step;
    }
  }

 private:
  Scratch<int64_t> offsets(const Phase& phase) const {
    Scratch<int64_t> result(static_cast<int64_t>(phase.at.size()) * plan_.in_channels);
    int64_t* to = result.data();
    for (int64_t channel = 0; channel < plan_.in_channels; ++channel)
      for (const Pair& at : phase.at) *to++ = channel * frames_[0].plane() + at[0] * frames_[0].pitch() + at[1];
    return result;
  }

  const ConvShape& s_;
  const Plan& plan_;
  Pack pack_;
  Scratch<float> weights_, sums_;
  std::vector<Framed<float>> frames_;
  std::vector<const float*> placed_, parts_;
  std::vector<Scratch<int64_t>> offsets_;
};

// Work is cut into sets of images x groups x blocks of channels.
void run(const ConvShape& s, const Plan& plan, Pack pack, float* y, const float* x, const float* w, const float* bias) {
  const int64_t blocks = plan.blocks(), together = images_together(plan), sets = ceil_div(plan.images, together);
  const int64_t in_size = plan.in_channels * plan.in[0] * plan.in[1], out_size = plan.out_channels * plan.out_plane();
  const int64_t cost = 2 * s.taps() * s.out_plane() * s.group_outputs / blocks * together;
  constexpr int64_t worth = 400'000;
  parallel_for(sets * plan.groups * blocks, grain_of(cost, worth), [&](int64_t begin, int64_t end) {
    Worker worker(s, plan, pack, together);
    int64_t placed = -1;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t set = i / blocks, block = i % blocks, group = set % plan.groups;  // set: and group
      const int64_t image = set / plan.groups * together, images = std::min(together, plan.images - image);
      if (placed != set) worker.place(x + (image * plan.groups + group) * in_size, images);
      placed = set;
      float* const to = y + (image * plan.groups + group) * out_size + block * conv_block * plan.out_plane();
      worker.run(to, w, bias, images, group, block);
    }
  });
}

}  // namespace

bool suits_blockwise(const Correlation& c) {
  constexpr int64_t small = 100, cached = 16 << 10;
  return c.out_plane() <= small && c.groups == 1 && c.blocks() * c.taps() * conv_block > cached;
}

void blockwise_forward(const ConvShape& s, float* y, const float* x, const float* w, const float* bias) {
  run(s, forward_plan(s), pack_forward, y, x, w, bias);
}

void blockwise_grad_input(const ConvShape& s, float* dx, const float* dy, const float* w) {
  run(s, grad_input_plan(s), pack_grad_input, dx, dy, w, nullptr);
}

}  // namespace loom::cpu
