// The rules the layer tests go through: between them every input part, weight map, bias map, mask and guard.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "base/rule.hpp"

namespace pylrp {

struct NamedRule {
  std::string name;
  Rule rule;
};

inline const std::vector<NamedRule>& test_rules() {
  const auto signs = [](double p, double n) { return WeightMap{MapKind::kSigns, p, n}; };
  const auto bias = [](double p, double n) { return BiasMap{BiasKind::kSigns, p, n}; };
  const WeightMap all = signs(1, 1), up = signs(1, 0), down = signs(0, 1), square{MapKind::kSquare}, one{MapKind::kOne};
  const auto scaled = [&](double p, double n, Mask mask) {
    return Group{
        {{Part::kPositive, signs(p, n)}, {Part::kNegative, signs(n, p)}}, bias(p, n), 1, mask, Guard::kSigned, 1e-6};
  };
  static const std::vector<NamedRule> rules{
      {"epsilon", {{{{{Part::kInput, all}}, bias(1, 1), 1, Mask::kAll, Guard::kSigned, 0.25}}}},
      {"z+", {{{{{Part::kPositive, up}, {Part::kNegative, down}}, bias(1, 0), 1, Mask::kAll, Guard::kSigned, 0}}}},
      {"alpha-beta",
       {{{{{Part::kPositive, up}, {Part::kNegative, down}}, bias(1, 0), 2, Mask::kAll, Guard::kSigned, 1e-6},
         {{{Part::kPositive, down}, {Part::kNegative, up}}, bias(0, 1), -1, Mask::kAll, Guard::kSigned, 1e-6}}}},
      {"gamma", {{scaled(1.25, 1, Mask::kPositive), scaled(1, 1.25, Mask::kNegative)}}},
      {"w^2", {{{{{Part::kOne, square}}, {BiasKind::kSquare}, 1, Mask::kAll, Guard::kSigned, 0}}}},
      {"flat", {{{{{Part::kOne, one}}, {}, 1, Mask::kAll, Guard::kSigned, 1e-6}}}},
      {"z-box",
       {{{{{Part::kInput, all}, {Part::kLow, up, -1}, {Part::kHigh, down, -1}},
          {},
          1,
          Mask::kAll,
          Guard::kSigned,
          1e-6}}}},
      {"no bias", {{{{{Part::kInput, all}}, {}, 1, Mask::kAll, Guard::kSigned, 0}}}},
      {"where zero", {{{{{Part::kInput, all}}, bias(1, 1), 1, Mask::kAll, Guard::kWhereZero, 1e-7}}}},
      // The plain output is the denominator and decides who serves.
      {"epsilon by sign",
       {{{{{Part::kInput, all}}, bias(1, 1), 1, Mask::kPositive, Guard::kSigned, 0.25},
         {{{Part::kInput, all}}, bias(1, 1), 1, Mask::kNegative, Guard::kSigned, 0.01}}}},
      // Constant terms that differ from group to group.
      {"two constants",
       {{{{{Part::kInput, all}, {Part::kLow, up, -1}}, {}, 2, Mask::kAll, Guard::kSigned, 1e-3},
         {{{Part::kInput, all, 2}, {Part::kOne, square}}, {}, -1, Mask::kAll, Guard::kSigned, 1e-3}}}},
      // None that anyone uses, and everything that the others leave out.
      {"odd",
       {{{{{Part::kInput, square, -1}, {Part::kNegative, signs(0.3, -0.7)}, {Part::kOne, signs(1, 0.5)}},
          {BiasKind::kSquare},
          -1.5,
          Mask::kAll,
          Guard::kSigned,
          1e-3},
         {{{Part::kPositive, signs(2, 0.5)}, {Part::kHigh, one}, {Part::kLow, square, -0.5}},
          bias(0.5, 2),
          0.75,
          Mask::kAll,
          Guard::kWhereZero,
          1e-3}}}},
  };
  return rules;
}

// The same for convolutions, where constant terms count as sums: "odd" is too wide for the kernels, its groups are not.
inline const std::vector<NamedRule>& conv_rules() {
  static const std::vector<NamedRule> rules = [] {
    std::vector<NamedRule> made = test_rules();
    const Rule odd = made.back().rule;
    made.pop_back();
    for (const Group& group : odd.groups) {
      made.push_back({"odd, one group", {{group}}});
    }
    return made;
  }();
  return rules;
}

inline const Rule& rule_named(const std::string& name) {
  for (const NamedRule& named : test_rules()) {
    if (named.name == name) {
      return named.rule;
    }
  }
  throw std::invalid_argument(name);
}

}  // namespace pylrp
