// Several values one after the other.
#pragma once

#include <vector>

#include "layers/layer.hpp"

namespace pylrp {

// Input k takes blocks[k] entries of each of `outer` stretches of the output.
template <class T>
class ConcatLayer : public Layer<T> {
 public:
  ConcatLayer(Index outer, std::vector<Index> blocks);
  Flow flow() const override { return Flow::kRouted; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool keeps_nonnegative() const override { return true; }
  bool reads_inputs(const CompiledRule*) const override { return false; }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;

 private:
  Index outer_, total_ = 0;  // total_: of the blocks
  std::vector<Index> blocks_;
};

}  // namespace pylrp
