#include <algorithm>

#include "rules/lower.hpp"

namespace pylrp {
namespace {

const WeightMap kAbove{MapKind::kSigns, 1, 0}, kBelow{MapKind::kSigns, 0, 1};

// The contributions above zero are those of a+ W+ and of a- W-, the ones below of the other two.
bool is_sum_of_sign(const Sum& sum, bool above) {
  const auto has = [&](Part part, const WeightMap& map) {
    return std::any_of(sum.begin(), sum.end(),
                       [&](const ProductTerm& tap) { return tap.part == part && tap.map == map; });
  };
  return sum.size() == 2 && has(Part::kPositive, above ? kAbove : kBelow) &&
         has(Part::kNegative, above ? kBelow : kAbove);
}

// What contributions above and below zero are multiplied with.
struct BySign {
  double above = 0, below = 0;
};

// On the way back; false: something else than their sign decides.
bool sent_by_sign(const LoweredRule& rule, int group, BySign* sent) {
  BySign of_positive, of_negative;  // parts of the input
  for (const BackProduct& back : rule.back) {
    if (back.group != group) {
      continue;
    }
    std::array<double, kParts> others = back.factor;
    others[static_cast<std::size_t>(Part::kPositive)] = others[static_cast<std::size_t>(Part::kNegative)] = 0;
    if (others != std::array<double, kParts>{} || !(back.map == kAbove || back.map == kBelow)) {
      return false;
    }
    const double positive = back.factor[static_cast<std::size_t>(Part::kPositive)];
    const double negative = back.factor[static_cast<std::size_t>(Part::kNegative)];
    (back.map == kAbove ? of_positive.above : of_positive.below) += positive;
    (back.map == kAbove ? of_negative.below : of_negative.above) += negative;
  }
  *sent = of_positive;
  return of_positive.above == of_negative.above && of_positive.below == of_negative.below;
}

// Where both are sent, not so unequally that sums and differences of the shares lose digits.
bool keeps_digits(const BySign& sent) {
  const double least = std::min(sent.above, sent.below), most = std::max(sent.above, sent.below);
  return least >= 0 && (least == 0 || most <= 2 * least);
}

}  // namespace

bool by_magnitude(const LoweredRule& rule, LoweredRule* result) {
  const std::size_t sums = rule.sums.size(), groups = rule.groups.size();
  if (sums < 1 || sums > 2 || groups < 1 || groups > 2 || !is_sum_of_sign(rule.sums[0], true) ||
      (sums == 2 && !is_sum_of_sign(rule.sums[1], false))) {
    return false;
  }
  LoweredRule made = rule;
  made.bias_by_sign = true;
  const auto halves = [&](const std::vector<double>& of) {
    const double above = of[0], below = sums == 2 ? of[1] : 0;
    return std::vector<double>{(above + below) / 2, (above - below) / 2};
  };
  BySign sent[2];
  for (std::size_t g = 0; g < groups; ++g) {
    Denominator& group = made.groups[g];
    const BySign taken{group.coef[0], sums == 2 ? group.coef[1] : 0};
    if (!group.constants.empty() || !sent_by_sign(rule, static_cast<int>(g), &sent[g]) ||
        taken.above != sent[g].above || taken.below != sent[g].below) {
      return false;
    }
    made.may_cancel = made.may_cancel || taken.above * taken.below <= 0;
    made.bias_by_sign = made.bias_by_sign && group.bias.kind == BiasKind::kSigns && group.bias.p == taken.above &&
                        group.bias.n == taken.below;
    group.coef = halves(group.coef);
  }
  made.sums = {{{Part::kInput, WeightMap{}}}, {{Part::kMagnitude, {MapKind::kSigns, 1, -1}}}};
  made.plain = halves(rule.plain);
  if (groups == 2) {
    if (sent[0].above != sent[1].below || sent[0].below != sent[1].above || !keeps_digits(sent[0])) {
      return false;
    }
    BackProduct plain{0, WeightMap{}, {}}, other{1, {MapKind::kSigns, 1, -1}, {}};
    const double difference = sent[0].above - sent[0].below;
    plain.factor[static_cast<std::size_t>(Part::kInput)] = sent[0].above + sent[0].below;
    other.factor[static_cast<std::size_t>(Part::kPositive)] = difference;
    other.factor[static_cast<std::size_t>(Part::kNegative)] = -difference;
    made.back = {plain, other};
    made.half_sum_and_difference = true;
  }
  *result = std::move(made);
  return true;
}

}  // namespace pylrp
