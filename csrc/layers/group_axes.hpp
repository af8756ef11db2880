// Which entries of a sample are a group of a normalisation, told by strides.
#pragma once

#include <vector>

#include "base/view.hpp"

namespace pylrp {

// One axis of a sample as it is stored.
struct GroupAxis {
  Index extent = 1, stride = 1;
  Index scale_stride = 0;  // in the arrays of scale and shift; 0: the same for all
  bool inside = false;     // of a group; else it counts groups
};

// Returns the axes of a sample, the largest stride first, merged where one does for two.
//
// scales: how many numbers the arrays of scale and shift have, 0 where there are none. Throws Error where the axes do
// not cover a sample without gaps, or reach beyond these arrays.
std::vector<GroupAxis> ordered_axes(std::vector<GroupAxis> axes, Index scales);

}  // namespace pylrp
