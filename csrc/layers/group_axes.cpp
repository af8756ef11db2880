#include "layers/group_axes.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "base/size.hpp"

namespace pylrp {
namespace {

// Next to each other: one axis does for both.
bool continues(const GroupAxis& large, const GroupAxis& small) {
  return large.inside == small.inside && large.stride == small.extent * small.stride &&
         large.scale_stride == small.extent * small.scale_stride;
}

}  // namespace

std::vector<GroupAxis> ordered_axes(std::vector<GroupAxis> axes, Index scales) {
  Index total = 1, reach = 0;
  for (const GroupAxis& axis : axes) {
    require_fit(axis.extent > 0 && axis.stride >= 0 && axis.scale_stride >= 0, "the axes of a normalisation");
    total = checked_product({total, axis.extent}, "the axes of a normalisation");
    reach += checked_product({axis.extent - 1, axis.scale_stride}, "the scales of a normalisation");
    require_fit(reach <= kMostEntries, "the scales of a normalisation");
  }
  require_fit(scales == 0 || reach < scales, "the scales of a normalisation");
  axes.erase(std::remove_if(axes.begin(), axes.end(), [](const GroupAxis& axis) { return axis.extent == 1; }),
             axes.end());
  std::sort(axes.begin(), axes.end(), [](const GroupAxis& a, const GroupAxis& b) { return a.stride > b.stride; });
  Index next = 1;
  for (std::size_t i = axes.size(); i-- > 0; next *= axes[i].extent) {
    require_fit(axes[i].stride == next, "the strides of a normalisation");
  }
  for (std::size_t i = axes.size(); i-- > 1;) {
    if (continues(axes[i - 1], axes[i])) {
      axes[i - 1] = {axes[i - 1].extent * axes[i].extent, axes[i].stride, axes[i].scale_stride, axes[i].inside};
      axes.erase(axes.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
  return axes;
}

}  // namespace pylrp
