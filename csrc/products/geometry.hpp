// Where the taps of a convolution fall. An image has three axes (depth, height, width; unused ones have size 1) and is
// stored channels last. Both directions, from the large image to the small one and back, are walks: rows of a product
// over positions of a target image, with taps that find their source.
#pragma once

#include <array>
#include <vector>

#include "base/view.hpp"

namespace pylrp {

using Axes = std::array<Index, 3>;
inline Index count(const Axes& axes) { return axes[0] * axes[1] * axes[2]; }

// Of a layer: from its input to its output (forward pass, sums) or from its output to its input (relevance).
enum class Direction { kForward, kBackward };

// A convolution from `in` to `out`; a transposed one goes from `out` to `in`.
struct ConvShape {
  Axes in, out, kernel, stride, dilation, pad;  // pad: before the image; what is behind it follows from `out`
  Index in_channels, out_channels, groups;

  Index taps() const { return count(kernel); }
  Index group_in() const { return in_channels / groups; }
  Index group_out() const { return out_channels / groups; }
};

// Throws Error unless every size is at least 1, groups divide the channels, and 64 bits count the entries of both
// images and of the weights and hold every place that a tap may fall on.
void require_countable(const ConvShape& shape);

// A position of the kernel that the rows of a walk meet.
struct KernelTap {
  Index kernel;  // which one
  Axes offset;   // source = scale * row + offset
};
struct Walk {
  Axes rows;         // how many along each axis
  Axes start, step;  // target = start + step * row
  Axes scale;
  Axes source, target;  // sizes of the images
  std::vector<KernelTap> taps;

  Index count() const { return pylrp::count(rows); }
  // Rows lie one after the other in the target.
  bool dense() const { return step == Axes{1, 1, 1}; }
};

// Over the positions of `out`: one walk.
std::vector<Walk> walks_to_out(const ConvShape& shape);
// Over the positions of `in`: one walk for each phase of the stride, whose positions meet the same taps.
std::vector<Walk> walks_to_in(const ConvShape& shape);

}  // namespace pylrp
