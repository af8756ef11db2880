#include <algorithm>

#include "rules/contributions.hpp"

namespace pylrp {
namespace {

bool is(const Sum& sum, const OfContribution& wanted) {
  OfContribution f;
  return by_contribution(sum, &f) && f == wanted;
}

// Where both are sent, not so unequally that sums and differences of the shares lose digits.
bool keeps_digits(const OfContribution& sent) {
  const double least = std::min(sent.above, sent.below), most = std::max(sent.above, sent.below);
  return least >= 0 && (least == 0 || most <= 2 * least);
}

}  // namespace

bool by_magnitude(const LoweredRule& rule, LoweredRule* result) {
  const std::size_t sums = rule.sums.size(), groups = rule.groups.size();
  ByContribution of;
  if (sums < 1 || sums > 2 || groups < 1 || groups > 2 || !is(rule.sums[0], {1, 0}) ||
      (sums == 2 && !is(rule.sums[1], {0, 1})) || !by_contribution(rule, &of) || !(of.denominators == of.sent)) {
    return false;
  }
  LoweredRule made = rule;
  made.bias_by_sign = true;
  const auto halves = [&](const std::vector<double>& factors) {
    const double above = factors[0], below = sums == 2 ? factors[1] : 0;
    return std::vector<double>{(above + below) / 2, (above - below) / 2};
  };
  for (std::size_t g = 0; g < groups; ++g) {
    Denominator& group = made.groups[g];
    const auto [above, below] = of.sent[g];
    made.may_cancel = made.may_cancel || above * below <= 0;
    made.bias_by_sign =
        made.bias_by_sign && group.bias.kind == BiasKind::kSigns && group.bias.p == above && group.bias.n == below;
    group.coef = halves(group.coef);
  }
  made.sums = {{{Part::kInput, WeightMap{}}}, {{Part::kMagnitude, {MapKind::kSigns, 1, -1}}}};
  made.plain = halves(rule.plain);
  if (groups == 2) {
    const auto [above, below] = of.sent[0];
    if (!(of.sent[1] == OfContribution{below, above}) || !keeps_digits(of.sent[0])) {
      return false;
    }
    BackProduct plain{0, WeightMap{}, {}}, other{1, {MapKind::kSigns, 1, -1}, {}};
    const double difference = above - below;
    plain.factor[static_cast<std::size_t>(Part::kInput)] = above + below;
    other.factor[static_cast<std::size_t>(Part::kPositive)] = difference;
    other.factor[static_cast<std::size_t>(Part::kNegative)] = -difference;
    made.back = {plain, other};
    made.half_sum_and_difference = true;
  }
  *result = std::move(made);
  return true;
}

}  // namespace pylrp
