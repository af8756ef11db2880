// The dense layer as a layer of a graph: along the last axis of (positions, features), all rows of a batch at once.
#pragma once

#include <mutex>

#include "layers/dense/dense.hpp"

namespace pylrp {

template <class T>
class DenseLayer : public Layer<T> {
 public:
  explicit DenseLayer(const DenseWeights<T>& dense, Index positions = 1);
  Flow flow() const override { return Flow::kRule; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  Index products() const override { return dense_.weight.rows * dense_.weight.cols * positions_; }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;
  // Alone, or between others, it is as fast by R where there is one position: z is at hand, nothing is computed again.
  Coefficients coefficients(const CompiledRule* rule) const override {
    const bool fits = rule != nullptr && rule->is_plain_and_exact(dense_.bias != nullptr);
    return !fits ? Coefficients::kNever : (positions_ > 1 ? Coefficients::kServes : Coefficients::kAlong);
  }
  bool reads_inputs(const CompiledRule* rule) const override { return rule->any().reads_input(); }
  bool reads_output(const CompiledRule* rule, bool at_hand) const override;
  bool reads_output_of_signed(const CompiledRule* rule, bool at_hand) const override;
  std::unique_ptr<Prepared> prepare(const CompiledRule& rule, const Bounds<T>& bounds,
                                    const Threads& threads) const override;

 private:
  // body(samples and positions as rows): all together where they lie one after the other, else sample by sample.
  template <class Body>
  void each_run(Index samples, bool together, Body body) const;

  // The weights as few samples read them: with their bfloat16, made once, where that is asked for.
  DenseWeights<T> weights_for(Index rows, const Threads& threads) const;

  DenseWeights<T> dense_;
  Index positions_;
  mutable std::once_flag half_made_;
  mutable Buffer<kernels::Bfloat16> half_;
};

}  // namespace pylrp
