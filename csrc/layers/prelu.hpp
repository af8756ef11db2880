// A ReLU with a slope of its own for each channel.
#pragma once

#include <vector>

#include "layers/function_relevance.hpp"
#include "layers/layer.hpp"

namespace pylrp {

// y = x where x >= 0, else slope x; slopes (channels) or one.
template <class T>
class PReLULayer : public Layer<T> {
 public:
  explicit PReLULayer(std::vector<T> slope) : slope_(std::move(slope)) {}
  Flow flow() const override { return Flow::kIdentity; }
  // x f'(x) = f(x): as it is under a gradient, too.
  Flow flow_under(const CompiledRule* rule) const override {
    return is_gradient(rule) ? Flow::kIdentity : flow_of_function(rule);
  }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool in_place() const override { return true; }
  bool keeps_nonnegative() const override { return true; }
  bool keeps_zero() const override { return true; }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;

 private:
  std::vector<T> slope_;
};

}  // namespace pylrp
