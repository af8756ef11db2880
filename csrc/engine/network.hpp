// A network as a chain of dense layers with activations: forward pass, then relevance, in one call.
#pragma once

#include <memory>
#include <vector>

#include "engine/chain.hpp"
#include "layers/activation.hpp"

namespace pylrp {

// A dense layer and the activations behind it, in order.
template <class T>
struct Stage {
  DenseLayer<T> dense;
  std::vector<Activation> activations;
  // What follows the dense layer keeps zeros at zero, so that a zero activation has an input <= 0 there.
  bool only_relu() const { return activations.size() == 1 && activations[0].kind == ActivationKind::kReLU; }
};

// Rules assigned to the stages, and what depends on them and the weights alone, computed once. Immutable: one plan
// may run on several threads at once.
template <class T>
class Plan {
 public:
  struct LayerRule {
    const CompiledRule* rule;
    Bounds<T> bounds;
  };
  // The views, rules and bounds are the caller's to keep alive.
  Plan(std::vector<Stage<T>> stages, const std::vector<LayerRule>& rules, const Threads& threads);

  Index inputs() const { return stages_.front().dense.weight.cols; }
  Index outputs() const { return stages_.back().dense.weight.rows; }
  std::size_t depth() const { return stages_.size(); }
  Index width(std::size_t stage) const { return stages_[stage].dense.weight.cols; }

  // Everything a run fills. activations[l] is the input of stage l (0: the caller's), the last entry the output;
  // kept[l] is z of stage l where a rule can reuse it and the activations do not hold it.
  struct Pass {
    std::vector<Matrix<const T>> activations;
    std::vector<Matrix<const T>> kept;
    std::vector<Buffer<T>> memory;
  };
  Pass forward(Matrix<const T> input, Matrix<T> output, const Threads& threads) const;
  // results[l] (batch, width(l)); ledger (depth, kLedgerColumns, batch).
  void relevance(const Pass& pass, Matrix<const T> top, const std::vector<Matrix<T>>& results, double* ledger,
                 const Threads& threads) const;

 private:
  bool keeps_output(std::size_t stage) const;

  std::vector<Stage<T>> stages_;
  std::vector<LayerRule> rules_;
  std::vector<DenseConstants<T>> constants_;
};

}  // namespace pylrp
