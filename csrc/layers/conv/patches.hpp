// Kernels over an image of few channels (RGB): what a position of the output reads, all taps and their channels side by
// side, makes it a dense layer of so many inputs; what it sends back lies in the same way.
#pragma once

#include <vector>

#include "products/geometry.hpp"

namespace pylrp {

// Of a convolution without groups, not transposed.
template <class T>
class Patches {
 public:
  explicit Patches(const ConvShape& shape);
  Index size() const { return shape_.taps() * shape_.in_channels; }
  // Lines of the input, which gather() takes one at a time.
  Index lines() const { return shape_.in[0] * shape_.in[1]; }
  // What positions [first, first + count) read of an image, `stride` apart; zeros beyond the image and behind a patch.
  void read(const T* image, Index first, Index count, Index stride, T* to) const;
  // to(width, channels): what the pixels of a line were sent by all positions of the image, whose patches lie `stride`
  // apart.
  void gather(const T* sent, Index stride, Index line, T* to) const;

 private:
  struct Meeting {  // of a pixel along an axis
    Index position, tap;
  };
  Index pixel(std::size_t axis, Index position, Index tap) const {
    return position * shape_.stride[axis] + tap * shape_.dilation[axis] - shape_.pad[axis];
  }
  bool is_inside(std::size_t axis, Index pixel) const { return pixel >= 0 && pixel < shape_.in[axis]; }
  void read_line(const T* line, Index position, T* to) const;

  const ConvShape shape_;
  std::vector<std::vector<Meeting>> meetings_[3];  // of each pixel
};

}  // namespace pylrp
