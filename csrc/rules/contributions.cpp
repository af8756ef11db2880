#include "rules/contributions.hpp"

#include <cmath>

namespace pylrp {
namespace {

// The factors of w a by the signs of a and of w.
struct BySigns {
  double of[2][2] = {};  // [a < 0][w < 0]

  // Adds `factor` times a part of the input times weights under a map; false: not of that kind.
  bool add(Part part, double factor, const WeightMap& map) {
    if (factor == 0) {
      return true;
    }
    double of_positive = factor, of_negative = factor;
    switch (part) {
      case Part::kInput:
        break;
      case Part::kPositive:
        of_negative = 0;
        break;
      case Part::kNegative:
        of_positive = 0;
        break;
      case Part::kMagnitude:
        of_negative = -factor;
        break;
      case Part::kOne:
      case Part::kLow:
      case Part::kHigh:
        return false;
    }
    of[0][0] += of_positive * map.p;
    of[0][1] += of_positive * map.n;
    of[1][0] += of_negative * map.p;
    of[1][1] += of_negative * map.n;
    return map.kind == MapKind::kSigns;
  }
  bool depends_on_contribution(OfContribution* f) const {
    const auto same = [](double x, double y) { return std::abs(x - y) <= 1e-12 * (std::abs(x) + std::abs(y)); };
    *f = {of[0][0], of[0][1]};
    return same(of[0][0], of[1][1]) && same(of[0][1], of[1][0]);
  }
};

// f of a combination of sums.
bool of_sums(const std::vector<Sum>& sums, const std::vector<double>& factors, OfContribution* f) {
  BySigns signs;
  for (std::size_t q = 0; q < sums.size(); ++q) {
    for (const ProductTerm& term : sums[q]) {
      if (!signs.add(term.part, factors[q], term.map)) {
        return false;
      }
    }
  }
  return signs.depends_on_contribution(f);
}

}  // namespace

bool by_contribution(const Sum& sum, OfContribution* f) { return of_sums({sum}, {1}, f); }

bool by_contribution(const LoweredRule& rule, ByContribution* result) {
  if (rule.half_sum_and_difference) {
    return false;
  }
  const std::size_t groups = rule.groups.size();
  result->denominators.resize(groups);
  result->sent.resize(groups);
  std::vector<BySigns> sent(groups);
  for (const BackProduct& back : rule.back) {
    for (int part = 0; part < kParts; ++part) {
      const double factor = back.factor[static_cast<std::size_t>(part)];
      if (!sent[static_cast<std::size_t>(back.group)].add(static_cast<Part>(part), factor, back.map)) {
        return false;
      }
    }
  }
  for (std::size_t g = 0; g < groups; ++g) {
    if (!rule.groups[g].constants.empty() || !of_sums(rule.sums, rule.groups[g].coef, &result->denominators[g]) ||
        !sent[g].depends_on_contribution(&result->sent[g])) {
      return false;
    }
  }
  return !rule.masked || of_sums(rule.sums, rule.plain, &result->plain);
}

}  // namespace pylrp
