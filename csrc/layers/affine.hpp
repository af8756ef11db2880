// A factor and a shift for each channel or entry: a BatchNorm that could not be folded.
#pragma once

#include <vector>

#include "layers/layer.hpp"

namespace pylrp {

// y = scale x + shift, (channels) each or one an entry. Relevance in proportion; the shift takes its share (a BatchNorm
// that could not be folded).
template <class T>
class AffineLayer : public Layer<T> {
 public:
  AffineLayer(std::vector<T> scale, std::vector<T> shift);
  Flow flow() const override { return only_scales_ ? Flow::kRouted : Flow::kProportional; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool reads_inputs(const CompiledRule*) const override { return !only_scales_; }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;

 private:
  std::vector<T> scale_, shift_;
  bool only_scales_;  // relevance passes unchanged
};

}  // namespace pylrp
