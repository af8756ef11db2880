// Softmax and its logarithm over the channels of each pixel.
#pragma once

#include <vector>

#include "layers/layer.hpp"

namespace pylrp {

// Over the channels of each pixel. Relevance passes unchanged: a probability that is explained starts at its logit.
template <class T>
class SoftmaxLayer : public Layer<T> {
 public:
  SoftmaxLayer(Index channels, bool logarithm) : channels_(channels), logarithm_(logarithm) {}
  Flow flow() const override { return Flow::kSame; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool makes_nonnegative() const override { return !logarithm_; }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>&, const Threads&) const override {}

 private:
  Index channels_;
  bool logarithm_;
};

}  // namespace pylrp
