// The weights of a depthwise convolution under a map, (taps, channels): few, so that they are mapped once a call.
#pragma once

#include "base/buffer.hpp"
#include "kernels/dispatch.hpp"
#include "layers/conv/weights.hpp"

namespace pylrp {

template <class T>
class MappedTaps {
 public:
  MappedTaps(const ConvWeights<T>& w, kernels::Weights<T> map) : weights_(w.weight) {
    if (map.read != kernels::Read::kPlain) {
      const Index size = w.shape.taps() * w.shape.in_channels;
      mapped_.reset(size);
      kernels::table<T>().map_weights(size, w.weight, map, mapped_.data());
      weights_ = mapped_.data();
    }
  }
  const T* data() const { return weights_; }

 private:
  const T* weights_;
  Buffer<T> mapped_;
};

}  // namespace pylrp
