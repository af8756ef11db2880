// Division by a statistic of a group of a sample's entries, with or without their mean: LayerNorm, RMSNorm, GroupNorm,
// InstanceNorm, division by a norm. Which entries are a group is told by strides. registry.hpp hands it to the engine.
#pragma once

#include <vector>

#include "layers/function_relevance.hpp"
#include "layers/group_axes.hpp"
#include "layers/layer.hpp"

namespace pylrp {

// What is divided by, d = max(sqrt(weight * sum (x - mean)^2 + inside) + outside, floor), and the like without a root.
// Where d is 0 nothing is divided.
struct Statistic {
  enum class Of { kLargest, kAbsolute, kSquares };  // the largest x, the sum of |x|, the root of that of x^2
  Of of = Of::kSquares;
  bool centred = false;                                   // of squares only
  double weight = 1, inside = 0, outside = 0, floor = 0;  // floor 0: none
};

template <class T>
struct StandardizeSettings {
  std::vector<GroupAxis> axes;
  Statistic statistic;
  std::vector<T> scale, shift;  // may be empty
};

// y = (x - mean) / d * scale + shift. d is a constant for relevance: with neither mean nor shift it passes unchanged.
// Else, with s = R / y (0 and counted as `dead` where y = 0) and t = scale s / d:
//   kDetach, or no rule: R_in = x (t - mean t)     the mean is the linear map that it is; without one R_in = x t
//   kDetachAll:          R_in = x t                `constant` takes -mean t
//   kGradient:           R_in = x (t - mean t - d' sum_j t_j (x_j - mean) / d), d' the derivative of d
// `bias` takes shift s. In coefficients s is what arrives, and t - mean t or t what is made; nothing is dead.
template <class T>
class StandardizeLayer : public Layer<T> {
 public:
  // Throws Error where the axes are not those of a stored sample, or the arrays do not fit them.
  explicit StandardizeLayer(StandardizeSettings<T> settings);
  Flow flow() const override { return statistic_.centred || has_shift_ ? Flow::kProportional : Flow::kIdentity; }
  Flow flow_under(const CompiledRule* rule) const override { return is_gradient(rule) ? Flow::kProportional : flow(); }
  void require_sizes(const std::vector<Index>& inputs, Index output) const override;
  bool keeps_nonnegative() const override { return keeps_nonnegative_; }
  bool keeps_zero() const override { return flow() == Flow::kIdentity; }
  Coefficients coefficients(const CompiledRule* rule) const override {
    return is_gradient(rule) ? Coefficients::kNever : Coefficients::kServes;
  }
  void forward(const std::vector<Matrix<const T>>& inputs, Matrix<T> output, const Clamp<T>& clamp,
               const Threads& threads) const override;
  void relevance(const RelevanceJob<T>& job, const Threads& threads) const override;

 private:
  struct Bundle;   // groups whose entries lie next to each other
  struct Moments;  // of a group
  class Arrays;    // scale and shift of a group, in its order
  Moments moments(const T* x) const;
  void order_arrays();
  Index tasks_a_row() const { return (bundles_ + bundles_a_task_ - 1) / bundles_a_task_; }
  template <class Body>
  void each_bundle(Index task, Body body) const;
  template <class Body>
  void each_run(Body body) const;
  const T* load(const T* row, const Bundle& bundle, T* memory) const;
  void store(const T* memory, const Bundle& bundle, T* row) const;
  void coefficients_of_group(const T* x, const T* c, const Arrays& arrays, const CompiledRule* rule, T* out,
                             kernels::Absorbed* lost) const;
  void relevance_of_group(const T* x, const T* r, const Arrays& arrays, const CompiledRule* rule, T* out,
                          kernels::Absorbed* lost) const;
  void less_by_statistic(const T* x, const Moments& group, double* t) const;

  std::vector<GroupAxis> outer_, inner_;  // the largest stride first
  Index groups_ = 1, size_ = 1;           // how many, and entries of each
  Index lanes_ = 1, bundles_ = 1, bundles_a_task_ = 1;
  bool contiguous_ = false;      // a group's entries lie one after the other
  bool scale_by_group_ = false;  // else the arrays are in a group's order
  Statistic statistic_;
  std::vector<T> scale_, shift_;
  bool has_scale_, has_shift_, keeps_nonnegative_;
};

}  // namespace pylrp
