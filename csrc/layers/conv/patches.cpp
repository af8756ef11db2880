#include "layers/conv/patches.hpp"

#include <algorithm>

namespace pylrp {

template <class T>
Patches<T>::Patches(const ConvShape& shape) : shape_(shape) {
  for (std::size_t axis = 0; axis < 3; ++axis) {
    meetings_[axis].resize(static_cast<std::size_t>(shape.in[axis]));
    for (Index position = 0; position < shape.out[axis]; ++position) {
      for (Index tap = 0; tap < shape.kernel[axis]; ++tap) {
        const Index met = pixel(axis, position, tap);
        if (is_inside(axis, met)) {
          meetings_[axis][static_cast<std::size_t>(met)].push_back({position, tap});
        }
      }
    }
  }
}

// The taps of a line of the kernel; null: it lies beyond the image.
template <class T>
void Patches<T>::read_line(const T* line, Index position, T* to) const {
  const Index channels = shape_.in_channels, taps = shape_.kernel[2], first = pixel(2, position, 0);
  if (line == nullptr) {
    std::fill_n(to, taps * channels, T(0));
  } else if (shape_.dilation[2] == 1 && first >= 0 && first + taps <= shape_.in[2]) {
    std::copy_n(line + first * channels, taps * channels, to);
  } else {
    for (Index tap = 0; tap < taps; ++tap, to += channels) {
      const Index x = pixel(2, position, tap);
      if (is_inside(2, x)) {
        std::copy_n(line + x * channels, channels, to);
      } else {
        std::fill_n(to, channels, T(0));
      }
    }
  }
}

template <class T>
void Patches<T>::read(const T* image, Index first, Index count, Index stride, T* to) const {
  const Index row = shape_.kernel[2] * shape_.in_channels, line = shape_.in[2] * shape_.in_channels;
  for (Index position = first; position < first + count; ++position, to += stride) {
    const Index across = position / shape_.out[2];
    T* at = to;
    for (Index tap_z = 0; tap_z < shape_.kernel[0]; ++tap_z) {
      const Index z = pixel(0, across / shape_.out[1], tap_z);
      for (Index tap_y = 0; tap_y < shape_.kernel[1]; ++tap_y, at += row) {
        const Index y = pixel(1, across % shape_.out[1], tap_y);
        read_line(is_inside(0, z) && is_inside(1, y) ? image + (z * shape_.in[1] + y) * line : nullptr,
                  position % shape_.out[2], at);
      }
    }
    std::fill(at, to + stride, T(0));
  }
}

template <class T>
void Patches<T>::gather(const T* sent, Index stride, Index line, T* to) const {
  const Index channels = shape_.in_channels, width = shape_.in[2];
  std::fill_n(to, width * channels, T(0));
  for (const Meeting& z : meetings_[0][static_cast<std::size_t>(line / shape_.in[1])]) {
    for (const Meeting& y : meetings_[1][static_cast<std::size_t>(line % shape_.in[1])]) {
      const T* const from = sent + (z.position * shape_.out[1] + y.position) * shape_.out[2] * stride +
                            (z.tap * shape_.kernel[1] + y.tap) * shape_.kernel[2] * channels;
      for (Index x = 0; x < width; ++x) {
        for (const Meeting& met : meetings_[2][static_cast<std::size_t>(x)]) {
          const T* const part = from + met.position * stride + met.tap * channels;
          for (Index c = 0; c < channels; ++c) {
            to[x * channels + c] += part[c];
          }
        }
      }
    }
  }
}

template class Patches<float>;
template class Patches<double>;

}  // namespace pylrp
