// Softmax and its logarithm along one axis of each sample.
#pragma once

#include <vector>

#include "layers/function_relevance.hpp"
#include "layers/layer.hpp"

namespace pylrp {

// A sample is (outer, channels, inner), the softmax goes over the channels. An entry of -inf takes no part, a row of
// nothing else gives zeros. Without a rule relevance passes unchanged: a probability at the top that is explained
// starts at its logit. Inside a network by Treatment::kTaylor or kStop.
template <class T>
class SoftmaxLayer : public Layer<T> {
 public:
  SoftmaxLayer(Index channels, bool logarithm, Index inner = 1)
      : channels_(channels), inner_(inner), logarithm_(logarithm) {}
  Flow flow() const override { return Flow::kIdentity; }
  Flow flow_under(const CompiledRule* rule) const override { return flow_of_function(rule); }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool makes_nonnegative() const override { return !logarithm_; }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;

 private:
  Index block() const { return channels_ * inner_; }
  void of_line(const T* x, T* out) const;
  void of_block(const T* x, T* out) const;

  Index channels_, inner_;
  bool logarithm_;
};

}  // namespace pylrp
