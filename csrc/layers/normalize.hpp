// Each pixel divided by the norm of its channels.
#pragma once

#include <vector>

#include "layers/layer.hpp"

namespace pylrp {

// y = x / norm of the channels of a pixel; x where that is zero. The norm counts as a constant: relevance passes
// unchanged.
template <class T>
class NormalizeLayer : public Layer<T> {
 public:
  // norm: 1 the sum of |x|, 2 the root of the sum of x^2, 0 the largest x
  NormalizeLayer(Index channels, int norm) : channels_(channels), norm_(norm) {}
  Flow flow() const override { return Flow::kIdentity; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool keeps_nonnegative() const override { return true; }
  bool keeps_zero() const override { return true; }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>&, const Threads&) const override {}

 private:
  Index channels_;
  int norm_;
};

}  // namespace pylrp
