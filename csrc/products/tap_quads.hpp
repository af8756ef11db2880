// The product that a convolution is (taps.hpp) where of each 2 x 2 positions of the target one is wanted, another one
// for each channel, as below a pool: the source pixels of four positions are one list of what is not zero in one of
// them (kernels/quads.hpp). Single precision, dense walks of one group and stride one.
#pragma once

#include <functional>
#include <vector>

#include "base/buffer.hpp"
#include "base/parallel.hpp"
#include "kernels/quads.hpp"
#include "products/taps.hpp"

namespace pylrp {

// The windows of 2 x 2 along the last two axes of a target; those at the end may be cut off.
class QuadWindows {
 public:
  explicit QuadWindows(const Axes& target)
      : target_(target), lines_((target[1] + 1) / 2), across_((target[2] + 1) / 2) {}
  Index count() const { return target_[0] * lines_ * across_; }
  Axes origin(Index window) const {
    return {window / across_ / lines_, window / across_ % lines_ * 2, window % across_ * 2};
  }
  // body(0 ... 3, position of the target) for those that are inside.
  template <class Body>
  void each(Index window, Body body) const {
    const Axes at = origin(window);
    for (Index q = 0; q < 4; ++q) {
      const Index y = at[1] + q / 2, x = at[2] + q % 2;
      if (y < target_[1] && x < target_[2]) {
        body(q, (at[0] * target_[1] + y) * target_[2] + x);
      }
    }
  }

 private:
  Axes target_;
  Index lines_, across_;
};

// Some windows of a sample, and some columns of theirs.
struct QuadBlock {
  Index task, sample, first, windows, column, columns, stride;
};

struct QuadWork {
  const Walk* walk;
  Index samples, channels, columns;
  std::vector<TapProduct<float>> products;  // of images that are not constant, rounded where the operands are
  Index outputs;
  PackTap<float> pack;
  Operands<float> operands;
  Index steps;  // channels as the weights count them
  // Which position of each window a column wants, (windows, stride).
  std::function<void(const QuadBlock&, std::int32_t* choice)> choose;
  // Sums (windows, block.stride) of each output are complete for some of the columns that were chosen.
  std::function<void(const QuadBlock&, const float* const* sums, const std::int32_t* choice, Index choice_stride)> done;
  // Makes the second output of some of the columns out of the first, or returns false: by products then. May be empty.
  std::function<bool(const QuadBlock&, const float* first, const std::int32_t* choice, Index choice_stride,
                     float* second)>
      second = {};

  Index tasks() const { return samples * blocks() * splits(); }
  Index blocks() const;  // of a sample
  Index splits() const;  // of the panels
  Index panels() const;
  bool packs_in_tasks() const;
};
void multiply_quads(const QuadWork& work, const Threads& threads);

}  // namespace pylrp
