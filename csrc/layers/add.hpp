// Sums of several values.
#pragma once

#include <vector>

#include "layers/layer.hpp"

namespace pylrp {

// y = x_1 + x_2 + ...; relevance goes to each in proportion to what it added.
template <class T>
class AddLayer : public Layer<T> {
 public:
  Flow flow() const override { return Flow::kProportional; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool keeps_nonnegative() const override { return true; }
  bool clamps() const override { return true; }
  bool relevance_in_place() const override { return true; }
  Coefficients coefficients(const CompiledRule* rule) const override {
    return rule != nullptr && rule->is_exact() ? Coefficients::kAlong : Coefficients::kNever;
  }
  bool same_coefficients() const override { return true; }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;
};

}  // namespace pylrp
