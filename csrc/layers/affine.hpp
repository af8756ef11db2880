// A factor and a shift for each channel or entry: a BatchNorm that could not be folded.
#pragma once

#include <vector>

#include "layers/layer.hpp"

namespace pylrp {

// y = scale x + shift, (channels) each or one an entry. Relevance in proportion; the shift takes its share (a BatchNorm
// that could not be folded), which the ledger has under `constant` where nothing is scaled. Both may be inputs instead,
// one an entry: where each token has its own and tokens are rows.
template <class T>
class AffineLayer : public Layer<T> {
 public:
  AffineLayer(std::vector<T> scale, std::vector<T> shift);
  // Of constants that are inputs.
  AffineLayer(bool only_scales, bool only_adds) : are_inputs_(true), only_scales_(only_scales), only_adds_(only_adds) {}
  Flow flow() const override { return only_scales_ ? Flow::kRouted : Flow::kProportional; }
  bool hands_to(std::size_t input, const CompiledRule*) const override { return input == 0; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool reads_inputs(const CompiledRule*) const override { return are_inputs_ || !only_scales_; }
  Coefficients coefficients(const CompiledRule* rule) const override {
    const bool fits = rule != nullptr && (rule->is_exact() || (rule->passes() && only_scales_));
    return fits ? Coefficients::kAlong : Coefficients::kNever;
  }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;

 private:
  const T* scale(const std::vector<Matrix<const T>>& inputs, Index row) const {
    return are_inputs_ ? inputs[1].row(row) : scale_.data();
  }
  const T* shift(const std::vector<Matrix<const T>>& inputs, Index row) const {
    return are_inputs_ ? inputs[2].row(row) : shift_.data();
  }
  std::size_t period(Index cols) const { return are_inputs_ ? static_cast<std::size_t>(cols) : scale_.size(); }

  std::vector<T> scale_, shift_;
  bool are_inputs_ = false;
  bool only_scales_;  // relevance passes unchanged
  bool only_adds_;    // all scales are 1
};

}  // namespace pylrp
