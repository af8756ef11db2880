#include "layers/conv/plan.hpp"

#include <algorithm>
#include <type_traits>

#include "base/error.hpp"
#include "layers/conv/switches.hpp"

namespace pylrp {

template <class T>
const std::vector<ForwardPath<T>>& forward_paths() {
  static const std::vector<ForwardPath<T>> paths = {
#if PYLRP_CONV_POSITIONS_IN_LANES
      positions_in_lanes<T>(),
#endif
#if PYLRP_CONV_FUSED_1X1
      fused_1x1_forward<T>(),
#endif
#if PYLRP_CONV_DEPTHWISE_LINES
      depthwise_lines_forward<T>(),
#endif
  };
  return paths;
}

template <class T>
const std::vector<ProductPath<T>>& product_paths() {
  static const std::vector<ProductPath<T>> paths = {
#if PYLRP_CONV_DEPTHWISE
      depthwise<T>(),
#endif
  };
  return paths;
}

template <class T>
const std::vector<RelevancePath<T>>& relevance_paths() {
  static const std::vector<RelevancePath<T>> paths = {
#if PYLRP_CONV_UNIFORM_WEIGHTS
      uniform_weights<T>(),
#endif
#if PYLRP_CONV_BY_CONTRIBUTION
      by_contribution_path<T>(),
#endif
#if PYLRP_CONV_FUSED_1X1
      fused_1x1<T>(),
#endif
#if PYLRP_CONV_DEPTHWISE_LINES
      depthwise_lines<T>(),
#endif
  };
  return paths;
}

template <class T>
const std::vector<SlicePath<T>>& slice_paths() {
  static const std::vector<SlicePath<T>> paths = {
#if PYLRP_CONV_TAPS_BY_MAGNITUDE
      taps_by_magnitude<T>(),
#endif
  };
  return paths;
}

template <class T>
const std::vector<SharesPath<T>>& shares_paths() {
  static const std::vector<SharesPath<T>> paths = {
#if PYLRP_CONV_OUTPUT_AS_SUM
      output_as_sum<T>(),
#endif
#if PYLRP_CONV_ONE_OF_FOUR
      one_of_four<T>(),
#endif
#if PYLRP_CONV_SUM_BY_SUBTRACTION
      sum_by_subtraction<T>(),
#endif
  };
  return paths;
}

template <class T>
const std::vector<BackwardPath<T>>& backward_paths() {
  static const std::vector<BackwardPath<T>> paths = {
#if PYLRP_CONV_FEW_INPUT_CHANNELS
      few_input_channels<T>(),
#endif
  };
  return paths;
}

template <class T>
bool may_run(ConvPath path, const ConvWeights<T>& w, const LoweredRule& rule) {
  const auto& paths = shares_paths<T>();
  return std::any_of(paths.begin(), paths.end(),
                     [&](const SharesPath<T>& p) { return p.path == path && p.may_run(w, rule); });
}

template <class T>
ConvForm<T>::ConvForm(const ConvWeights<T>& w, const LoweredRule& lowered) : rule(with_constants_as_sums(lowered)) {
  const auto list = [&](const auto& paths, auto& listed) {
    std::copy_if(paths.begin(), paths.end(), std::back_inserter(listed),
                 [&](const auto& path) { return path.may_run(w, rule); });
  };
  list(relevance_paths<T>(), relevance);
  if (!lists(ConvPath::kFused1x1)) {  // which has a way of its own
    list(slice_paths<T>(), slices);
  }
  list(shares_paths<T>(), shares);
  list(backward_paths<T>(), backward);
#if PYLRP_CONV_BY_CONTRIBUTION
  if constexpr (std::is_same_v<T, float>) {
    if (lists(ConvPath::kByContribution)) {
      contributions = contributions_of(w, rule);
    }
  }
#endif
  LoweredRule made;
  if (!pylrp::by_magnitude(rule, &made)) {
    return;
  }
  if (lists(ConvPath::kTapsByMagnitude)) {
    magnitudes = made;
  }
#if PYLRP_CONV_SIGNS_BY_MAGNITUDE
  if (lists(ConvPath::kFused1x1) && made.may_cancel && made.half_sum_and_difference) {
    by_magnitude = std::move(made);
  }
#endif
}

template <class T>
bool ConvForm<T>::lists(ConvPath path) const {
  const auto has = [&](const auto& paths) {
    return std::any_of(paths.begin(), paths.end(), [&](const auto& listed) { return listed.path == path; });
  };
  return has(relevance) || has(slices) || has(shares) || has(backward);
}

template <class T>
ConvPlan<T>::ConvPlan(const ConvWeights<T>& w, const CompiledRule& rule) {
  for (const bool output_positive : {false, true}) {
    for (const bool input_nonnegative : {false, true}) {
      try {
        forms_[(input_nonnegative ? 1 : 0) + (output_positive ? 2 : 0)].emplace(
            w, rule.form(input_nonnegative, output_positive));
      } catch (const Error&) {
        // Too wide in this form, which may never be asked for: relevance() makes it then, and throws.
      }
    }
  }
}

template <class T>
const ConvForm<T>* ConvPlan<T>::form(bool input_nonnegative, bool output_positive) const {
  const auto& made = forms_[(input_nonnegative ? 1 : 0) + (output_positive ? 2 : 0)];
  return made ? &*made : nullptr;
}

#define PYLRP_INSTANTIATE(T)                                                     \
  template const std::vector<ForwardPath<T>>& forward_paths<T>();                \
  template const std::vector<ProductPath<T>>& product_paths<T>();                \
  template const std::vector<RelevancePath<T>>& relevance_paths<T>();            \
  template const std::vector<SlicePath<T>>& slice_paths<T>();                    \
  template const std::vector<SharesPath<T>>& shares_paths<T>();                  \
  template const std::vector<BackwardPath<T>>& backward_paths<T>();              \
  template bool may_run<T>(ConvPath, const ConvWeights<T>&, const LoweredRule&); \
  template struct ConvForm<T>;                                                   \
  template struct ConvPlan<T>;
PYLRP_INSTANTIATE(float)
PYLRP_INSTANTIATE(double)
#undef PYLRP_INSTANTIATE

}  // namespace pylrp
