// The fast paths of a convolution as data, and the plan that lists those that may run for a rule and some weights.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "layers/conv/steps.hpp"
#include "rules/contributions.hpp"

namespace pylrp {

// may_run: from weights and rule alone, asked once, by the plan. applies: from what only the call knows (batch size,
// signs, whether the output is at hand), asked at run time.

// The forward pass.
template <class T>
struct ForwardPath {
  ConvPath path;
  bool (*applies)(const ConvWeights<T>& w, Matrix<const T> input, const Threads& threads);
  void (*run)(const ConvWeights<T>& w, Matrix<const T> input, Matrix<T> output, const Clamp<T>& clamp,
              const Threads& threads);
};
// Sums over taps.
template <class T>
struct ProductPath {
  ConvPath path;
  bool (*applies)(const ConvWeights<T>& w);
  void (*run)(const ConvSums<T>& sums, const Threads& threads);
  Index (*tasks)(const ConvSums<T>& sums, const Walk& walk);  // that it will count
};
// All of relevance.
template <class T>
struct RelevancePath {
  ConvPath path;
  bool (*may_run)(const ConvWeights<T>& w, const LoweredRule& rule);
  bool (*applies)(const ConvCall<T>& call);
  void (*run)(const ConvCall<T>& call);
};
// The shares of a slice.
template <class T>
struct SharesPath {
  ConvPath path;
  bool (*may_run)(const ConvWeights<T>& w, const LoweredRule& rule);
  bool (*applies)(const ConvCall<T>& call);
  bool may_give_up;  // run() returns false where it meets too much cancellation: the next path does the slice anew
  bool (*run)(const ConvCall<T>& call, const BatchSlice& slice, T* shares);
};
// The shares of a slice and R_in from them.
template <class T>
struct SlicePath {
  ConvPath path;
  bool (*may_run)(const ConvWeights<T>& w, const LoweredRule& rule);
  bool (*applies)(const ConvCall<T>& call);
  bool (*run)(const ConvCall<T>& call, const BatchSlice& slice, T* shares);  // false: it gives up, as a SharesPath
};
// R_in of a slice from its shares.
template <class T>
struct BackwardPath {
  ConvPath path;
  bool (*may_run)(const ConvWeights<T>& w, const LoweredRule& rule);
  void (*run)(const ConvCall<T>& call, const BatchSlice& slice, const T* shares);
};

// What by_contribution knows of a rule and some weights.
struct ContributionForm {
  ByContribution rule;
  bool finite = true;  // all weights are
};
ContributionForm contributions_of(const ConvWeights<float>& w, const LoweredRule& rule);

// One lowered form of a rule, with the paths that may run, in the order in which they are asked.
template <class T>
struct ConvForm {
  LoweredRule rule;                         // constant terms are sums: they differ at the borders of an image
  std::optional<LoweredRule> by_magnitude;  // for fused_1x1, where the rule is of that kind
  std::optional<LoweredRule> magnitudes;    // for taps_by_magnitude, likewise
  std::optional<ContributionForm> contributions;
  std::vector<RelevancePath<T>> relevance;
  std::vector<SlicePath<T>> slices;
  std::vector<SharesPath<T>> shares;
  std::vector<BackwardPath<T>> backward;

  // Throws Error on a rule that is too wide with its constant terms as sums.
  ConvForm(const ConvWeights<T>& w, const LoweredRule& lowered);
  bool lists(ConvPath path) const;
};

template <class T>
bool ConvCall<T>::output_is_sum() const {
  return job.output && form.lists(ConvPath::kOutputAsSum);
}

// The forms for what is known of the signs of input and output.
template <class T>
struct ConvPlan : Prepared {
  ConvPlan(const ConvWeights<T>& w, const CompiledRule& rule);
  // Null: that form is too wide.
  const ConvForm<T>* form(bool input_nonnegative, bool output_positive) const;

 private:
  std::array<std::optional<ConvForm<T>>, 4> forms_;
};

// The paths that are built, in the order in which they are asked.
template <class T>
const std::vector<ForwardPath<T>>& forward_paths();
template <class T>
const std::vector<ProductPath<T>>& product_paths();
template <class T>
const std::vector<RelevancePath<T>>& relevance_paths();
template <class T>
const std::vector<SlicePath<T>>& slice_paths();
template <class T>
const std::vector<SharesPath<T>>& shares_paths();
template <class T>
const std::vector<BackwardPath<T>>& backward_paths();

// Whether a shares path is built and may run.
template <class T>
bool may_run(ConvPath path, const ConvWeights<T>& w, const LoweredRule& rule);

// The fast paths, by file.
template <class T>
RelevancePath<T> by_contribution_path();
template <class T>
ForwardPath<T> positions_in_lanes();
template <class T>
ForwardPath<T> fused_1x1_forward();
template <class T>
RelevancePath<T> fused_1x1();
template <class T>
ProductPath<T> depthwise();
template <class T>
ForwardPath<T> depthwise_lines_forward();
template <class T>
RelevancePath<T> depthwise_lines();
template <class T>
SharesPath<T> output_as_sum();
template <class T>
SharesPath<T> one_of_four();
template <class T>
SharesPath<T> sum_by_subtraction();
template <class T>
SlicePath<T> taps_by_magnitude();
template <class T>
RelevancePath<T> uniform_weights();
template <class T>
BackwardPath<T> few_input_channels();

}  // namespace pylrp
