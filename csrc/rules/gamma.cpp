#include "rules/gamma.hpp"

#include <algorithm>

namespace pylrp {
namespace {

// Contributions of one sign, above or below zero, times g, the others once: with the bias likewise.
bool favours(const Group& group, bool above, double g) {
  const double positive = above ? g : 1, negative = above ? 1 : g;
  const auto reads = [&](Part part, double p, double n) {
    return std::any_of(group.terms.begin(), group.terms.end(), [&](const Term& term) {
      return term.part == part && term.map == WeightMap{MapKind::kSigns, p, n} && term.sign == 1;
    });
  };
  return group.mask == (above ? Mask::kPositive : Mask::kNegative) && group.terms.size() == 2 &&
         reads(Part::kPositive, positive, negative) && reads(Part::kNegative, negative, positive) &&
         group.bias.kind == BiasKind::kSigns && group.bias.p == positive && group.bias.n == negative;
}

}  // namespace

bool gamma_by_magnitude(const Rule& rule, LoweredRule* result) {
  if (rule.groups.size() != 2 || rule.groups[0].terms.empty()) {
    return false;
  }
  const WeightMap& first = rule.groups[0].terms[0].map;
  const double g = std::max(first.p, first.n), extra = g - 1;
  if (!(extra > 0 && extra <= 1) || !favours(rule.groups[0], true, g) || !favours(rule.groups[1], false, g)) {
    return false;
  }
  const WeightMap magnitude{MapKind::kSigns, 1, -1};
  *result = LoweredRule{};
  result->sums = {{{Part::kInput, WeightMap{}}}, {{Part::kMagnitude, magnitude}}};
  result->masked = true;
  result->plain = {1, 0};
  for (const Group& group : rule.groups) {
    const double sign = group.mask == Mask::kPositive ? 1 : -1;
    result->groups.push_back(
        {{1 + extra / 2, sign * extra / 2}, {}, group.bias, group.coefficient, group.mask, group.guard, group.epsilon});
  }
  BackProduct plain{0, WeightMap{}, {}}, other{1, magnitude, {}};
  plain.factor[static_cast<std::size_t>(Part::kInput)] = 2 + extra;
  other.factor[static_cast<std::size_t>(Part::kPositive)] = extra;
  other.factor[static_cast<std::size_t>(Part::kNegative)] = -extra;
  result->back = {plain, other};
  result->half_sum_and_difference = true;
  return true;
}

}  // namespace pylrp
