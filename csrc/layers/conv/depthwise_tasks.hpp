// How depthwise_lines.cpp makes tasks of channels and of targets.
#pragma once

#include <algorithm>

#include "layers/conv/plan.hpp"

namespace pylrp {

// The channels of a task: many of them, since what is read of a pixel lies in one piece then (14 x 14 pixels, 480
// channels, relevance: 107, 98 and 92 us with 32, 48 and 96 at a time), but tasks for several threads.
struct Columns {
  Index first, count;
};
class ChannelTasks {
 public:
  template <class T>
  ChannelTasks(const ConvWeights<T>& w, Index least)
      : channels_(w.shape.in_channels),
        line_(64 / Index{sizeof(T)}),
        lines_((channels_ + line_ - 1) / line_),
        parts_(std::clamp<Index>(lines_ / kLines / 2 * 2, std::min(lines_, least), lines_)) {}
  Index parts() const { return parts_; }
  Columns columns(Index part) const {
    const Index first = lines_ * part / parts_ * line_;
    return {first, std::min(channels_, lines_ * (part + 1) / parts_ * line_) - first};
  }

 private:
  static constexpr Index kLines = 6;
  Index channels_, line_, lines_, parts_;  // line: of the cache
};

inline constexpr Index kManySamples = 4;  // that make tasks enough
inline constexpr Index kWide = 768;       // bytes of a pixel

// Three taps along a line are not worth reading pixels in pieces of less than some cache lines.
template <class T>
bool is_narrow(const ConvCall<T>& call) {
  const ConvShape& shape = call.weights.shape;
  return shape.kernel[2] == 3 && shape.in_channels * Index{sizeof(T)} < kWide;
}
// Few samples make tasks of some targets each there, which all compute the sums (ten targets of 112 x 112 to 56 x 56
// pixels, 96 channels: 15.4 and 9.9 ms in the general way and this one; with 32 channels 5.2 and 5.5).
template <class T>
Index target_parts(const ConvCall<T>& call) {
  const Index targets = call.job.targets(), batch = std::max<Index>(call.job.batch, 1);
  const bool few =
      !is_narrow(call) || targets < kManySamples || call.weights.shape.in_channels * Index{sizeof(T)} < 256;
  return few ? 1 : std::clamp<Index>((kManySamples + batch - 1) / batch, 1, targets / 2);
}
// Else one sample makes two tasks of a few channels.
template <class T>
Index least_parts(const ConvCall<T>& call) {
  return call.job.batch < kManySamples && target_parts(call) == 1 ? 2 : 1;
}

}  // namespace pylrp
