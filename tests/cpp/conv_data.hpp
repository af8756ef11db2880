// Convolutions for the tests: shapes, and a layer with all that a rule may read, as wires from a naive loop.
#pragma once

#include <string>

#include "layers/conv/conv.hpp"
#include "reference.hpp"

namespace pylrp {

// before, behind: the padding on both sides.
struct Geometry {
  Axes in, kernel, stride{1, 1, 1}, dilation{1, 1, 1}, before{0, 0, 0}, behind{0, 0, 0};

  // Whether at least one window fits.
  bool fits() const {
    const Axes out = this->out();
    return out[0] > 0 && out[1] > 0 && out[2] > 0;
  }
  Axes out() const {
    Axes out{};
    for (std::size_t a = 0; a < 3; ++a) {
      const Index room = in[a] + before[a] + behind[a] - dilation[a] * (kernel[a] - 1) - 1;
      out[a] = room < 0 ? 0 : room / stride[a] + 1;
    }
    return out;
  }
  ConvShape shape(Index in_channels = 1, Index out_channels = 1, Index groups = 1) const {
    return {in, out(), kernel, stride, dilation, before, in_channels, out_channels, groups};
  }
};

// One to three axes, with all that a convolution may have.
inline Geometry random_geometry(Random& random) {
  while (true) {
    Geometry made{{1, 1, 1}, {1, 1, 1}};
    for (std::size_t a = static_cast<std::size_t>(random.up_to(0, 2)); a < 3; ++a) {
      made.in[a] = random.up_to(1, a == 2 ? 12 : 4);
      made.kernel[a] = random.up_to(1, a == 2 ? 5 : 3);
      made.stride[a] = random.up_to(1, 3);
      made.dilation[a] = random.up_to(1, 3);
      made.before[a] = random.up_to(0, 5);
      made.behind[a] = random.up_to(0, 5);
    }
    if (made.fits()) {
      return made;
    }
  }
}

// body(output position, tap, input position) for all that meet: the definition of a convolution.
template <class Body>
void each_meeting(const ConvShape& s, Body body) {
  for (Index o0 = 0; o0 < s.out[0]; ++o0) {
    for (Index o1 = 0; o1 < s.out[1]; ++o1) {
      for (Index o2 = 0; o2 < s.out[2]; ++o2) {
        for (Index k0 = 0; k0 < s.kernel[0]; ++k0) {
          for (Index k1 = 0; k1 < s.kernel[1]; ++k1) {
            for (Index k2 = 0; k2 < s.kernel[2]; ++k2) {
              const Index i0 = o0 * s.stride[0] + k0 * s.dilation[0] - s.pad[0];
              const Index i1 = o1 * s.stride[1] + k1 * s.dilation[1] - s.pad[1];
              const Index i2 = o2 * s.stride[2] + k2 * s.dilation[2] - s.pad[2];
              if (i0 >= 0 && i0 < s.in[0] && i1 >= 0 && i1 < s.in[1] && i2 >= 0 && i2 < s.in[2]) {
                body((o0 * s.out[1] + o1) * s.out[2] + o2, (k0 * s.kernel[1] + k1) * s.kernel[2] + k2,
                     (i0 * s.in[1] + i1) * s.in[2] + i2);
              }
            }
          }
        }
      }
    }
  }
}

inline Index image_size(const ConvShape& shape, bool out) {
  return count(out ? shape.out : shape.in) * (out ? shape.out_channels : shape.in_channels);
}

template <class T>
struct ConvData : LayerArrays<T> {
  ConvData(const ConvShape& s, bool is_transposed, Index batch, Index targets, unsigned seed, bool nonnegative,
           bool one_bias_an_entry = false)
      : LayerArrays<T>(batch, targets, image_size(s, is_transposed), image_size(s, !is_transposed)),
        shape(s),
        transposed(is_transposed),
        depthwise(s.groups > 1 && s.groups == s.in_channels && s.groups == s.out_channels),
        weight(depthwise ? s.taps() : s.out_channels, depthwise ? s.groups : s.taps() * s.group_in(), 0),
        by_position(one_bias_an_entry),
        bias(1, by_position ? image_size(s, !is_transposed) : (transposed ? s.in_channels : s.out_channels), 0) {
    Random random(seed);
    weight.fill(random);
    bias.fill([&] { return random() / 2; });
    this->fill(random, nonnegative);
    if (!transposed && s.out_channels > 3) {  // a channel without receivers
      for (Index t = 0; t < s.taps() * s.group_in(); ++t) {
        (depthwise ? weight.at(t, 2) : weight.at(2, t)) = 0;
      }
      for (Index j = 2; j < bias.cols(); j += s.out_channels) {
        bias.at(0, j) = 0;
      }
    }
  }
  // Of output channel `out`, tap, and input channel `in` counted within its group.
  double weight_of(Index out, Index tap, Index in) {
    return static_cast<double>(depthwise ? weight.at(tap, out) : weight.at(out, tap * shape.group_in() + in));
  }
  Wires wires(bool with_bias) {
    Wires wires{this->input.cols(), {}, {}};
    wires.outputs.resize(static_cast<std::size_t>(this->relevance.cols()));
    each_meeting(shape, [&](Index out_pixel, Index tap, Index in_pixel) {
      for (Index o = 0; o < shape.out_channels; ++o) {
        const Index group = o / shape.group_out();
        for (Index i = 0; i < shape.group_in(); ++i) {
          const Index small = out_pixel * shape.out_channels + o;
          const Index large = in_pixel * shape.in_channels + group * shape.group_in() + i;
          const Index from = transposed ? small : large, to = transposed ? large : small;
          wires.outputs[static_cast<std::size_t>(to)].push_back({from, weight_of(o, tap, i)});
        }
      }
    });
    for (Index j = 0; j < this->relevance.cols(); ++j) {
      wires.bias.push_back(with_bias ? static_cast<double>(bias.at(0, j % bias.cols())) : 0);
    }
    return wires;
  }
  ConvLayer<T> layer(bool with_bias) {
    return ConvLayer<T>({shape, transposed, weight.data(), with_bias ? bias.data() : nullptr, by_position});
  }
  bool intact() { return weight.intact() && bias.intact() && LayerArrays<T>::intact(); }

  ConvShape shape;
  bool transposed, depthwise;
  Fenced<T> weight;
  bool by_position;  // the bias: one an entry of the output
  Fenced<T> bias;
};

}  // namespace pylrp
