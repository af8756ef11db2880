// Softmax and its logarithm over the channels of each pixel.
#pragma once

#include <vector>

#include "layers/function_relevance.hpp"
#include "layers/layer.hpp"

namespace pylrp {

// Over the channels of each pixel. Without a rule relevance passes unchanged: a probability at the top that is
// explained starts at its logit. Inside a network by Treatment::kTaylor or kStop.
template <class T>
class SoftmaxLayer : public Layer<T> {
 public:
  SoftmaxLayer(Index channels, bool logarithm) : channels_(channels), logarithm_(logarithm) {}
  Flow flow() const override { return Flow::kIdentity; }
  Flow flow_under(const CompiledRule* rule) const override { return flow_of_function(rule); }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool makes_nonnegative() const override { return !logarithm_; }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;

 private:
  void of_pixel(const T* x, T* out) const;

  Index channels_;
  bool logarithm_;
};

}  // namespace pylrp
