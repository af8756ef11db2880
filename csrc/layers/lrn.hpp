// Local response normalisation over neighbouring channels (AlexNet).
#pragma once

#include <vector>

#include "layers/layer.hpp"

namespace pylrp {

// y = x / (bias + alpha / size * sum of x^2 over `size` channels around)^beta. Relevance passes unchanged.
template <class T>
class LocalResponseNormLayer : public Layer<T> {
 public:
  LocalResponseNormLayer(Index channels, Index size, double alpha, double beta, double bias)
      : channels_(channels), size_(size), alpha_(alpha), beta_(beta), bias_(bias) {}
  Flow flow() const override { return Flow::kIdentity; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool keeps_nonnegative() const override { return true; }
  bool keeps_zero() const override { return true; }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>&, const Threads&) const override {}

 private:
  Index channels_, size_;
  double alpha_, beta_, bias_;
};

}  // namespace pylrp
