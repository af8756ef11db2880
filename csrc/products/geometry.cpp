#include "products/geometry.hpp"

#include <algorithm>

#include "base/size.hpp"

namespace pylrp {
namespace {

Axes tap_at(const ConvShape& shape, Index tap) {
  return {tap / (shape.kernel[1] * shape.kernel[2]), tap / shape.kernel[2] % shape.kernel[1], tap % shape.kernel[2]};
}

}  // namespace

void require_countable(const ConvShape& shape) {
  constexpr Index kFar = Index{1} << 60;
  for (std::size_t a = 0; a < 3; ++a) {
    for (const Index size : {shape.in[a], shape.out[a], shape.kernel[a], shape.stride[a], shape.dilation[a]}) {
      require_fit(size > 0, "the sizes of a convolution");
    }
  }
  require_fit(shape.in_channels > 0 && shape.out_channels > 0 && shape.groups > 0 &&
                  shape.in_channels % shape.groups == 0 && shape.out_channels % shape.groups == 0,
              "the channels of a convolution and its groups");
  const auto entries = [](const Axes& image, Index channels) {
    return checked_product({image[0], image[1], image[2], channels}, "a convolution's image");
  };
  const Index most = std::max(entries(shape.in, shape.in_channels), entries(shape.out, shape.out_channels));
  checked_product({shape.kernel[0], shape.kernel[1], shape.kernel[2], shape.group_in(), shape.out_channels},
                  "a convolution's weight");
  for (std::size_t a = 0; a < 3; ++a) {
    const Index pad = shape.pad[a];
    require_fit(pad <= kMostEntries && pad >= -kMostEntries, "the padding of a convolution");
    const Index reach = checked_product({shape.out[a], shape.stride[a]}, "a convolution's steps") +
                        checked_product({shape.kernel[a], shape.dilation[a]}, "a convolution's kernel") +
                        std::max(pad, -pad);
    require_fit(reach <= kFar / most, "the places of a convolution and 64 bits");
  }
}

std::vector<Walk> walks_to_out(const ConvShape& shape) {
  Walk walk{shape.out, {0, 0, 0}, {1, 1, 1}, shape.stride, shape.in, shape.out, {}};
  for (Index t = 0; t < shape.taps(); ++t) {
    const Axes at = tap_at(shape, t);
    KernelTap tap{t, {}};
    for (std::size_t a = 0; a < 3; ++a) {
      tap.offset[a] = at[a] * shape.dilation[a] - shape.pad[a];
    }
    walk.taps.push_back(tap);
  }
  return {walk};
}

std::vector<Walk> walks_to_in(const ConvShape& shape) {
  std::vector<Walk> walks;
  Axes phases{};  // behind the image there is nothing to walk over
  for (std::size_t a = 0; a < 3; ++a) {
    phases[a] = std::min(shape.stride[a], shape.in[a]);
  }
  for (Index p = 0; p < count(phases); ++p) {
    const Axes phase{p / (phases[1] * phases[2]), p / phases[2] % phases[1], p % phases[2]};
    Walk walk{{}, phase, shape.stride, {1, 1, 1}, shape.out, shape.in, {}};
    for (std::size_t a = 0; a < 3; ++a) {
      walk.rows[a] = (shape.in[a] - phase[a] + shape.stride[a] - 1) / shape.stride[a];
    }
    for (Index t = 0; t < shape.taps(); ++t) {
      const Axes at = tap_at(shape, t);
      KernelTap tap{t, {}};
      bool meets = true;
      for (std::size_t a = 0; a < 3; ++a) {
        const Index distance = phase[a] + shape.pad[a] - at[a] * shape.dilation[a];
        meets = meets && distance % shape.stride[a] == 0;
        tap.offset[a] = distance / shape.stride[a];
      }
      if (meets) {
        walk.taps.push_back(tap);
      }
    }
    walks.push_back(std::move(walk));
  }
  return walks;
}

}  // namespace pylrp
