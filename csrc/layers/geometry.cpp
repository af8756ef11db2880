#include "layers/geometry.hpp"

namespace pylrp {
namespace {

Axes tap_at(const ConvShape& shape, Index tap) {
  return {tap / (shape.kernel[1] * shape.kernel[2]), tap / shape.kernel[2] % shape.kernel[1], tap % shape.kernel[2]};
}

}  // namespace

std::vector<Walk> walks_to_out(const ConvShape& shape) {
  Walk walk{shape.out, {0, 0, 0}, {1, 1, 1}, shape.stride, shape.in, shape.out, {}};
  for (Index t = 0; t < shape.taps(); ++t) {
    const Axes at = tap_at(shape, t);
    Walk::Tap tap{t, {}};
    for (std::size_t a = 0; a < 3; ++a) {
      tap.offset[a] = at[a] * shape.dilation[a] - shape.pad[a];
    }
    walk.taps.push_back(tap);
  }
  return {walk};
}

std::vector<Walk> walks_to_in(const ConvShape& shape) {
  std::vector<Walk> walks;
  const Index phases = count(shape.stride);
  for (Index p = 0; p < phases; ++p) {
    const Axes phase{p / (shape.stride[1] * shape.stride[2]), p / shape.stride[2] % shape.stride[1],
                     p % shape.stride[2]};
    Walk walk{{}, phase, shape.stride, {1, 1, 1}, shape.out, shape.in, {}};
    for (std::size_t a = 0; a < 3; ++a) {
      walk.rows[a] = phase[a] < shape.in[a] ? (shape.in[a] - phase[a] + shape.stride[a] - 1) / shape.stride[a] : 0;
    }
    if (walk.count() == 0) {
      continue;
    }
    for (Index t = 0; t < shape.taps(); ++t) {
      const Axes at = tap_at(shape, t);
      Walk::Tap tap{t, {}};
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
