// The product of two computed values as matrices: C = scale A B, for each of some leading axes (heads, say).
#pragma once

#include <vector>

#include "layers/layer.hpp"

namespace pylrp {

// Where an operand's entries lie in a sample: a step for each leading axis (0: the operand is the same along it), one
// for its rows, one for its columns.
struct Steps {
  std::vector<Index> leading;
  Index row = 0, col = 0;
};

// C (rows, cols) from A (rows, depth) and B (depth, cols), for each place along the leading axes of these lengths.
struct Products {
  std::vector<Index> leading;
  Index rows = 0, depth = 0, cols = 0;
  Steps a, b, c;
  double scale = 1;
};

// Treatment::kHalf: R_A = A * (q B^T), R_B = B * (A^T q) with q = scale R / (2 C). kValueRight, kValueLeft: the whole
// of it goes to B, or to A, the other factor counts as a constant; kGradient: the whole to each. Where C is 0 there is
// no receiver.
template <class T>
class MatMulLayer : public Layer<T> {
 public:
  explicit MatMulLayer(Products products);
  Flow flow() const override { return Flow::kProportional; }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  Index products() const override;
  bool keeps_nonnegative() const override { return of_.scale >= 0; }
  bool reads_output(const CompiledRule*, bool) const override { return true; }
  Coefficients coefficients(const CompiledRule* rule) const override {
    return is_gradient(rule) ? Coefficients::kNever : Coefficients::kServes;
  }
  bool hands_to(std::size_t input, const CompiledRule* rule) const override {
    return treatment_of(rule) != (input == 0 ? Treatment::kValueRight : Treatment::kValueLeft);
  }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;

 private:
  struct Place;

  static Treatment treatment_of(const CompiledRule* rule) {
    return rule == nullptr ? Treatment::kHalf : rule->rule().treatment;
  }
  Place place_of(Index number) const;
  void relevance_of_place(const RelevanceJob<T>& job, Index row, const Place& place, kernels::Absorbed* lost) const;

  Products of_;
  std::vector<std::size_t> apart_, shared_;  // leading axes along which both operands go on; the others
  Index places_ = 1, repeats_ = 1;           // along those
};

}  // namespace pylrp
