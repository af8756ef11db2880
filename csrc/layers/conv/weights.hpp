// The weights of a convolution, as all files of this folder read them: (out_channels, taps, in_channels of a group). In
// one direction a row is a row of a dense layer, in the other a tap is a matrix.
#pragma once

#include "base/size.hpp"
#include "base/view.hpp"
#include "products/geometry.hpp"

namespace pylrp {

template <class T>
struct ConvWeights {
  ConvShape shape;
  bool transposed;                // the layer goes from shape.out to shape.in
  const T* weight;                // (out_channels, taps, in_channels / groups); depthwise (taps, channels)
  const T* bias;                  // one a channel of the layer's output, or null
  bool bias_by_position = false;  // one an entry of the output instead: what is folded into a padded convolution

  bool depthwise() const { return shape.group_in() == 1 && shape.group_out() == 1 && shape.groups > 1; }
  // A kernel of one that meets every position once, with one bias for all of them.
  bool is_1x1() const {
    return !transposed && !bias_by_position && shape.groups == 1 && shape.taps() == 1 && shape.in == shape.out &&
           shape.stride == Axes{1, 1, 1} && shape.pad == Axes{0, 0, 0};
  }
  const Axes& source() const { return transposed ? shape.out : shape.in; }
  const Axes& target() const { return transposed ? shape.in : shape.out; }
  Index source_channels() const { return transposed ? shape.out_channels : shape.in_channels; }
  Index target_channels() const { return transposed ? shape.in_channels : shape.out_channels; }
  Index source_size() const { return count(source()) * source_channels(); }
  Index target_size() const { return count(target()) * target_channels(); }
  Index bias_size() const { return bias_by_position ? target_size() : target_channels(); }
  // Entries of the bias from one position to the next.
  Index bias_step() const { return bias_by_position ? target_channels() : 0; }
  // From output channel `out` to input channel `in` of its group; the next output channel's is `row_size` further
  // (depthwise: a group has one).
  const T* at(Index out, Index tap, Index in) const {
    return depthwise() ? weight + tap * shape.out_channels + out
                       : weight + out * row_size() + tap * shape.group_in() + in;
  }
  // (out_channels, taps * in_channels / groups); not of a depthwise one.
  Matrix<const T> matrix() const { return {weight, shape.out_channels, row_size(), row_size()}; }
  Index row_size() const { return shape.taps() * shape.group_in(); }
  Index products() const {  // of large ones, at least kMostEntries
    return bounded_product({count(shape.out), shape.taps(), shape.group_in(), shape.out_channels});
  }
};

}  // namespace pylrp
